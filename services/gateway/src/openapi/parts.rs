//! Parts of the document.

use serde_json::Value;
use utoipa::openapi::{
    Required, Type,
    path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
    schema::{Object, ObjectBuilder},
};

pub fn operation(id: &str, summary: &str) -> OperationBuilder {
    OperationBuilder::new().operation_id(Some(id)).summary(Some(summary))
}

pub fn text() -> Object {
    ObjectBuilder::new().schema_type(Type::String).build()
}

fn pattern(pattern: &str) -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
}

pub fn ids() -> Object {
    pattern("^[A-Za-z0-9_-]{1,100}$")
}

pub fn durations() -> Object {
    pattern("^[0-9]+(ms|s|m)$")
}

fn parameter(
    place: ParameterIn,
    name: &str,
    description: &str,
    schema: Object,
    example: impl Into<Value>,
) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .description(Some(description))
        .schema(Some(schema))
        .example(Some(example.into()))
}

pub fn query(
    name: &str,
    description: &str,
    schema: Object,
    example: impl Into<Value>,
) -> Parameter {
    parameter(ParameterIn::Query, name, description, schema, example)
        .required(Required::False)
        .build()
}

pub fn header(name: &str, description: &str, schema: Object, example: &str) -> Parameter {
    parameter(ParameterIn::Header, name, description, schema, example)
        .required(Required::False)
        .build()
}

pub fn in_path(name: &str, description: &str, example: &str) -> Parameter {
    parameter(ParameterIn::Path, name, description, ids(), example).required(Required::True).build()
}
