"""What servers may publish as a schema: any JSON, rich in the words of JSON Schema, OpenAPI and older drafts."""

from __future__ import annotations

from hypothesis import strategies as st

from pytest_openenv_scale.config.action_schema.document import TYPES

KEYWORDS = st.sampled_from(
    [
        *("$ref", "$id", "id", "$anchor", "$dynamicRef", "$recursiveRef"),
        *("$defs", "definitions", "type", "enum", "const", "default"),
        *("example", "examples", "properties", "required", "additionalProperties", "patternProperties"),
        *("propertyNames", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "dependencies"),
        *("items", "prefixItems", "additionalItems", "contains", "minContains", "minItems"),
        *("maxItems", "uniqueItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("multipleOf", "minLength", "maxLength", "pattern", "format", "contentEncoding"),
        *("contentMediaType", "contentSchema", "allOf", "anyOf", "oneOf", "not"),
        *("if", "then", "else", "discriminator", "unevaluatedProperties", "nullable"),
        *("a", "b"),
    ]
)
TEXTS = st.text(max_size=4) | st.sampled_from(
    [
        *TYPES,
        "#",
        "#/properties/a",
        "#a",
        "http://x/y",
        "urn:x",
        "(",
        "^a{3}$",
        r"^(?=.*\d)x*$",
        "[^a]+",
        "uuid",
        "\ud800",
    ]
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 4) | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS | TEXTS, inner, max_size=5),
    max_leaves=25,
)

FOREIGN_SCHEMAS = st.dictionaries(KEYWORDS, ANY_JSON, max_size=7)
