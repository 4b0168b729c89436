//! The keys of every field that OTLP names in a trace request, message by message (OTLP 1.11, as
//! `opentelemetry-proto` 0.33 has it): `trace.proto`, `common.proto`, `resource.proto`.

/// Declares a message: its name in error texts, the keys of its fields, and the set of their numbers.
macro_rules! message {
    ($name:ident { $($field:ident = $number:literal $wire_type:ident),* $(,)? }) => {
        pub(in crate::span) mod $name {
            use crate::span::wire::{self, Known};

            pub(in crate::span) const KNOWN: Known =
                Known { message: stringify!($name), fields: 0 $(| 1 << $number)* };
            $(pub(in crate::span) const $field: u32 = wire::key($number, wire::$wire_type);)*
        }
    };
}

message!(request { RESOURCE_SPANS = 1 LEN });
message!(resource_spans { RESOURCE = 1 LEN, SCOPE_SPANS = 2 LEN, SCHEMA_URL = 3 LEN });
message!(resource { ATTRIBUTES = 1 LEN, DROPPED = 2 VARINT, ENTITY_REFS = 3 LEN });
message!(entity_ref { SCHEMA_URL = 1 LEN, TYPE = 2 LEN, ID_KEYS = 3 LEN, DESCRIPTION_KEYS = 4 LEN });
message!(scope_spans { SCOPE = 1 LEN, SPANS = 2 LEN, SCHEMA_URL = 3 LEN });
message!(scope { NAME = 1 LEN, VERSION = 2 LEN, ATTRIBUTES = 3 LEN, DROPPED = 4 VARINT });
message!(span {
    TRACE_ID = 1 LEN,
    SPAN_ID = 2 LEN,
    TRACE_STATE = 3 LEN,
    PARENT_SPAN_ID = 4 LEN,
    NAME = 5 LEN,
    KIND = 6 VARINT,
    START = 7 FIXED64,
    END = 8 FIXED64,
    ATTRIBUTES = 9 LEN,
    DROPPED_ATTRIBUTES = 10 VARINT,
    EVENTS = 11 LEN,
    DROPPED_EVENTS = 12 VARINT,
    LINKS = 13 LEN,
    DROPPED_LINKS = 14 VARINT,
    STATUS = 15 LEN,
    FLAGS = 16 FIXED32,
});
message!(event { TIME = 1 FIXED64, NAME = 2 LEN, ATTRIBUTES = 3 LEN, DROPPED = 4 VARINT });
message!(link {
    TRACE_ID = 1 LEN,
    SPAN_ID = 2 LEN,
    TRACE_STATE = 3 LEN,
    ATTRIBUTES = 4 LEN,
    DROPPED = 5 VARINT,
    FLAGS = 6 FIXED32,
});
message!(status { MESSAGE = 2 LEN, CODE = 3 VARINT });
message!(key_value { KEY = 1 LEN, VALUE = 2 LEN, KEY_INDEX = 3 VARINT });
message!(any_value {
    STRING = 1 LEN,
    BOOL = 2 VARINT,
    INT = 3 VARINT,
    DOUBLE = 4 FIXED64,
    ARRAY = 5 LEN,
    KVLIST = 6 LEN,
    BYTES = 7 LEN,
    STRING_INDEX = 8 VARINT,
});
message!(array_value { VALUES = 1 LEN });
message!(key_value_list { VALUES = 1 LEN });
