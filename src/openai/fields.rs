//! The fields of a request: each is taken once with its type, and what is left is refused.
//! Does not know which fields there are.

use serde_json::{Map, Value};

use super::error::ApiError;

/// What is left of a request's fields.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// # Errors
    /// The body is no JSON object.
    pub fn of(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(ApiError::request("the body is no JSON object")),
            Err(error) => Err(ApiError::request(format!("the body is no JSON: {error}"))),
        }
    }

    /// The value of a field; null is none.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// # Errors
    /// It is no number between these.
    pub fn number(&mut self, name: &str, least: f64, most: f64) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|x| (least..=most).contains(x)) {
            Some(x) => Ok(Some(x)),
            None => Err(wrong(name, &value, &format!("a number from {least} to {most}"))),
        }
    }

    /// # Errors
    /// It is no whole number between these.
    pub fn count(&mut self, name: &str, least: u32, most: u32) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let found = value.as_u64().and_then(|x| u32::try_from(x).ok());
        match found.filter(|x| (least..=most).contains(x)) {
            Some(x) => Ok(Some(x)),
            None if most == u32::MAX => {
                Err(wrong(name, &value, &format!("a whole number from {least} on")))
            }
            None => Err(wrong(name, &value, &format!("a whole number from {least} to {most}"))),
        }
    }

    /// # Errors
    /// It is no truth value.
    pub fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(value) => Err(wrong(name, &value, "true or false")),
        }
    }

    /// # Errors
    /// It is neither a text nor a list of at most `most`, or one of them is empty.
    pub fn texts(&mut self, name: &str, most: usize) -> Result<Vec<String>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(Vec::new()) };
        let list = match &value {
            Value::Array(list) => list.clone(),
            one => vec![one.clone()],
        };
        let texts: Option<Vec<String>> =
            list.iter().map(|text| text.as_str().map(str::to_owned)).collect();
        let sound = texts.filter(|all| all.len() <= most && all.iter().all(|t| !t.is_empty()));
        let what = format!("a text, or a list of at most {most}, none of them empty");
        sound.ok_or_else(|| wrong(name, &value, &what))
    }

    /// A field that is not supported, but for values that change nothing.
    ///
    /// # Errors
    /// It has another value.
    pub fn only(&mut self, name: &str, neutral: &[Value]) -> Result<(), ApiError> {
        let Some(value) = self.take(name) else { return Ok(()) };
        let same = |other: &Value| match (value.as_f64(), other.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => *other == value,
        };
        match neutral.iter().any(same) {
            true => Ok(()),
            false => {
                Err(ApiError::field(name, format!("`{name}` is not supported here: leave it out")))
            }
        }
    }

    /// # Errors
    /// There are fields that nobody took.
    pub fn end(self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => {
                Err(ApiError::field(name, format!("field `{name}` is not understood here")))
            }
        }
    }
}

/// A field of another type or size.
pub fn wrong(name: &str, value: &Value, wanted: &str) -> ApiError {
    let shown = match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > 40 => "a text".to_owned(),
        value => value.to_string(),
    };
    ApiError::field(name, format!("`{name}` is {shown}, not {wanted}"))
}
