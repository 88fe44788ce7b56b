"""JSON Schemas of types, and values read by these types: for the parameters of tools, and for the text of a run.

msgspec makes and reads most of them, and pydantic those that are its own. Public: nothing. The modules:

annotations     what an annotation consists of
pydantic_types  what pydantic reads
time_formats    the formats of times, which msgspec leaves out
output_type     the type of a run's text
strict          the subset of JSON Schema that strict mode accepts
"""
