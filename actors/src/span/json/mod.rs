//! OTLP/JSON to OTLP's bytes (OTLP specification 1.11, "JSON Protobuf Encoding").
//!
//! The mapping is protobuf's, with the exceptions that OTLP makes: trace and span ids are hexadecimal texts, of any
//! case; enums are numbers, never names; field names are in lowerCamelCase, never otherwise; unknown ones are ignored.
//! From protobuf's mapping: `null` is as good as absent; 64-bit integers are decimal texts or numbers, and 32-bit ones too;
//! a double may be `"NaN"`, `"Infinity"` or `"-Infinity"`; `bytesValue` is base64 of either alphabet, padded or not.
//! Half a surrogate pair in a text is read as U+FFFD, which keeps the rest of the request.
//!
//! What comes out is checked by [`scan`](super::scan) as any request is. JSON nests 127 levels at most.

mod error;
mod read;
mod schema;
#[cfg(test)]
mod tests;

pub use error::JsonError;

/// Appends the `ExportTraceServiceRequest` that `text` is, as protobuf encodes it: at most an eighth longer than the text.
///
/// # Errors
///
/// The text is no JSON, or no such request; what was appended then is good for nothing.
pub fn from_json(text: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
    match std::str::from_utf8(text) {
        Ok(text) => read::request(text, out),
        Err(error) => Err(JsonError::not_utf8(text, error.valid_up_to())),
    }
}
