//! The messages of a trace request and their fields, by their names in JSON: `trace.proto`, `common.proto` and
//! `resource.proto` of OTLP 1.11.

use crate::span::fields::{
    any_value, array_value, entity_ref, event, key_value, key_value_list, link, request, resource,
    resource_spans, scope, scope_spans, span, status,
};

/// A message.
pub(super) struct Message {
    pub(super) fields: &'static [Field],
    /// Its fields are the members of a oneof: one of them at most is there, and is written also where it is 0 or empty.
    pub(super) is_oneof: bool,
}

/// A field of a message.
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Number and wire type; 0 for the request itself, which has no frame.
    pub(super) key: u32,
    pub(super) kind: Kind,
    pub(super) is_list: bool,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Message(&'static Message),
    Text,
    /// Hexadecimal.
    Id,
    /// Base64.
    Bytes,
    Bool,
    Double,
    Int64,
    Int32,
    Uint32,
    Enum,
    Fixed64,
    Fixed32,
}

impl Kind {
    /// What its values have to be.
    pub(super) fn rule(self) -> &'static str {
        match self {
            Self::Message(_) => "must be an object",
            Self::Text => "must be a text",
            Self::Id => "must be a text of hexadecimal digits, two a byte",
            Self::Bytes => "must be a text in base64",
            Self::Bool => "must be true or false",
            Self::Double => "must be a number, or \"NaN\", \"Infinity\" or \"-Infinity\"",
            Self::Int64 => "must be an integer of 64 bits, as a number or a text",
            Self::Int32 => "must be an integer of 32 bits, as a number or a text",
            Self::Uint32 | Self::Fixed32 => "must be an integer from 0 to 4294967295, as a number or a text",
            Self::Enum => "must be the integer of an enum, not its name",
            Self::Fixed64 => "must be an integer from 0 to 18446744073709551615, as a number or a text",
        }
    }
}

const fn one(name: &'static str, key: u32, kind: Kind) -> Field {
    Field { name, key, kind, is_list: false }
}

const fn list(name: &'static str, key: u32, kind: Kind) -> Field {
    Field { name, key, kind, is_list: true }
}

const fn message(fields: &'static [Field]) -> Message {
    Message { fields, is_oneof: false }
}

/// The whole.
pub(super) static ROOT: Field = one("", 0, Kind::Message(&REQUEST));

static REQUEST: Message =
    message(&[list("resourceSpans", request::RESOURCE_SPANS, Kind::Message(&RESOURCE_SPANS))]);

static RESOURCE_SPANS: Message = message(&[
    one("resource", resource_spans::RESOURCE, Kind::Message(&RESOURCE)),
    list("scopeSpans", resource_spans::SCOPE_SPANS, Kind::Message(&SCOPE_SPANS)),
    one("schemaUrl", resource_spans::SCHEMA_URL, Kind::Text),
]);

static RESOURCE: Message = message(&[
    list("attributes", resource::ATTRIBUTES, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", resource::DROPPED, Kind::Uint32),
    list("entityRefs", resource::ENTITY_REFS, Kind::Message(&ENTITY_REF)),
]);

static ENTITY_REF: Message = message(&[
    one("schemaUrl", entity_ref::SCHEMA_URL, Kind::Text),
    one("type", entity_ref::TYPE, Kind::Text),
    list("idKeys", entity_ref::ID_KEYS, Kind::Text),
    list("descriptionKeys", entity_ref::DESCRIPTION_KEYS, Kind::Text),
]);

static SCOPE_SPANS: Message = message(&[
    one("scope", scope_spans::SCOPE, Kind::Message(&SCOPE)),
    list("spans", scope_spans::SPANS, Kind::Message(&SPAN)),
    one("schemaUrl", scope_spans::SCHEMA_URL, Kind::Text),
]);

static SCOPE: Message = message(&[
    one("name", scope::NAME, Kind::Text),
    one("version", scope::VERSION, Kind::Text),
    list("attributes", scope::ATTRIBUTES, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", scope::DROPPED, Kind::Uint32),
]);

static SPAN: Message = message(&[
    one("traceId", span::TRACE_ID, Kind::Id),
    one("spanId", span::SPAN_ID, Kind::Id),
    one("traceState", span::TRACE_STATE, Kind::Text),
    one("parentSpanId", span::PARENT_SPAN_ID, Kind::Id),
    one("name", span::NAME, Kind::Text),
    one("kind", span::KIND, Kind::Enum),
    one("startTimeUnixNano", span::START, Kind::Fixed64),
    one("endTimeUnixNano", span::END, Kind::Fixed64),
    list("attributes", span::ATTRIBUTES, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", span::DROPPED_ATTRIBUTES, Kind::Uint32),
    list("events", span::EVENTS, Kind::Message(&EVENT)),
    one("droppedEventsCount", span::DROPPED_EVENTS, Kind::Uint32),
    list("links", span::LINKS, Kind::Message(&LINK)),
    one("droppedLinksCount", span::DROPPED_LINKS, Kind::Uint32),
    one("status", span::STATUS, Kind::Message(&STATUS)),
    one("flags", span::FLAGS, Kind::Fixed32),
]);

static EVENT: Message = message(&[
    one("timeUnixNano", event::TIME, Kind::Fixed64),
    one("name", event::NAME, Kind::Text),
    list("attributes", event::ATTRIBUTES, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", event::DROPPED, Kind::Uint32),
]);

static LINK: Message = message(&[
    one("traceId", link::TRACE_ID, Kind::Id),
    one("spanId", link::SPAN_ID, Kind::Id),
    one("traceState", link::TRACE_STATE, Kind::Text),
    list("attributes", link::ATTRIBUTES, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", link::DROPPED, Kind::Uint32),
    one("flags", link::FLAGS, Kind::Fixed32),
]);

static STATUS: Message =
    message(&[one("message", status::MESSAGE, Kind::Text), one("code", status::CODE, Kind::Enum)]);

static KEY_VALUE: Message = message(&[
    one("key", key_value::KEY, Kind::Text),
    one("value", key_value::VALUE, Kind::Message(&ANY_VALUE)),
    one("keyStrindex", key_value::KEY_INDEX, Kind::Int32),
]);

static ANY_VALUE: Message = Message {
    fields: &[
        one("stringValue", any_value::STRING, Kind::Text),
        one("boolValue", any_value::BOOL, Kind::Bool),
        one("intValue", any_value::INT, Kind::Int64),
        one("doubleValue", any_value::DOUBLE, Kind::Double),
        one("arrayValue", any_value::ARRAY, Kind::Message(&ARRAY_VALUE)),
        one("kvlistValue", any_value::KVLIST, Kind::Message(&KEY_VALUE_LIST)),
        one("bytesValue", any_value::BYTES, Kind::Bytes),
        one("stringValueStrindex", any_value::STRING_INDEX, Kind::Int32),
    ],
    is_oneof: true,
};

static ARRAY_VALUE: Message = message(&[list("values", array_value::VALUES, Kind::Message(&ANY_VALUE))]);

static KEY_VALUE_LIST: Message =
    message(&[list("values", key_value_list::VALUES, Kind::Message(&KEY_VALUE))]);
