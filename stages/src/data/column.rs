//! The values of one column of a table, and what a cell says when another type is wanted.
//! Knows nothing of files or of what columns mean.

use std::borrow::Cow;

use serde_json::Value;

/// Most characters of a cell that an error shows.
const SHOWN: usize = 40;

/// Whole numbers beyond this are not exact as floating-point numbers.
const EXACT: i64 = 1 << 53;

/// The values of one column; `None` is a missing value.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    Text(Vec<Option<String>>),
    Float(Vec<Option<f64>>),
    Int(Vec<Option<i64>>),
    Bool(Vec<Option<bool>>),
    /// Lists, maps, numbers that fit no other type, and values of several types: each as JSON.
    Json(Vec<Option<String>>),
    /// Bytes that are not UTF-8 text.
    Bytes(Vec<Option<Vec<u8>>>),
}

/// Runs the same code on the values of a column, whatever their type.
macro_rules! each {
    ($column:expr, $values:ident => $body:expr) => {
        match $column {
            Column::Text($values) | Column::Json($values) => $body,
            Column::Float($values) => $body,
            Column::Int($values) => $body,
            Column::Bool($values) => $body,
            Column::Bytes($values) => $body,
        }
    };
}

impl Column {
    /// A column of text without gaps.
    pub fn text(values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Text(values.into_iter().map(|v| Some(v.into())).collect())
    }

    /// A column of numbers; one that is not finite becomes a gap.
    pub fn floats(values: impl IntoIterator<Item = f64>) -> Self {
        Self::Float(values.into_iter().map(|v| v.is_finite().then_some(v)).collect())
    }

    /// A column of whole numbers without gaps.
    pub fn ints(values: impl IntoIterator<Item = i64>) -> Self {
        Self::Int(values.into_iter().map(Some).collect())
    }

    /// A column of truth values without gaps.
    pub fn bools(values: impl IntoIterator<Item = bool>) -> Self {
        Self::Bool(values.into_iter().map(Some).collect())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a row has no value.
    pub fn is_gap(&self, row: usize) -> bool {
        each!(self, v => v[row].is_none())
    }

    /// Number of rows that have a value.
    pub fn values(&self) -> usize {
        (0..self.len()).filter(|row| !self.is_gap(*row)).count()
    }

    fn all_gaps(&self) -> bool {
        (0..self.len()).all(|row| self.is_gap(row))
    }

    /// The rows at `indices`, in that order.
    #[must_use]
    pub fn take(&self, indices: &[usize]) -> Self {
        fn pick<T: Clone>(values: &[Option<T>], indices: &[usize]) -> Vec<Option<T>> {
            indices.iter().map(|i| values[*i].clone()).collect()
        }
        match self {
            Self::Text(v) => Self::Text(pick(v, indices)),
            Self::Float(v) => Self::Float(pick(v, indices)),
            Self::Int(v) => Self::Int(pick(v, indices)),
            Self::Bool(v) => Self::Bool(pick(v, indices)),
            Self::Json(v) => Self::Json(pick(v, indices)),
            Self::Bytes(v) => Self::Bytes(pick(v, indices)),
        }
    }

    /// Adds `rows` rows without a value at the end.
    pub fn extend_gaps(&mut self, rows: usize) {
        each!(self, v => v.resize(v.len() + rows, None));
    }

    /// The values of `below` after these. Two types become one that holds both; what that one has
    /// no form for is missing then: bytes, and numbers that are not finite.
    #[must_use]
    pub fn stack(self, below: Self) -> Self {
        fn join<T>(mut above: Vec<T>, below: Vec<T>) -> Vec<T> {
            above.extend(below);
            above
        }
        match (self, below) {
            (Self::Text(x), Self::Text(y)) => Self::Text(join(x, y)),
            (Self::Float(x), Self::Float(y)) => Self::Float(join(x, y)),
            (Self::Int(x), Self::Int(y)) => Self::Int(join(x, y)),
            (Self::Bool(x), Self::Bool(y)) => Self::Bool(join(x, y)),
            (Self::Json(x), Self::Json(y)) => Self::Json(join(x, y)),
            (Self::Bytes(x), Self::Bytes(y)) => Self::Bytes(join(x, y)),
            // One file's bytes may all be text, another's not: they are of one column.
            (Self::Bytes(x), Self::Text(y)) => Self::Bytes(join(x, as_bytes(y))),
            (Self::Text(x), Self::Bytes(y)) => Self::Bytes(join(as_bytes(x), y)),
            (mut x, y) if y.all_gaps() => {
                x.extend_gaps(y.len());
                x
            }
            (x, y) if x.all_gaps() => {
                let mut gaps = y.take(&[]);
                gaps.extend_gaps(x.len());
                gaps.stack(y)
            }
            (Self::Float(x), Self::Int(y)) if exact(&y) => Self::Float(join(x, as_floats(&y))),
            (Self::Int(x), Self::Float(y)) if exact(&x) => Self::Float(join(as_floats(&x), y)),
            (x, y) => {
                let json = |c: &Self| match c {
                    Self::Bytes(_) => vec![None; c.len()],
                    _ => (0..c.len()).map(|i| c.json(i)).collect(),
                };
                Self::Json(join(json(&x), json(&y)))
            }
        }
    }

    /// Bytes become text where all of them are: many writers store text without saying so.
    #[must_use]
    pub fn settle(self) -> Self {
        match self {
            Self::Bytes(v) if v.iter().flatten().all(|b| std::str::from_utf8(b).is_ok()) => {
                let text = |b: Vec<u8>| String::from_utf8(b).unwrap_or_default();
                Self::Text(v.into_iter().map(|b| b.map(text)).collect())
            }
            other => other,
        }
    }

    /// One value as text for people and programs; `None` when it is missing.
    pub fn display(&self, row: usize) -> Option<String> {
        match self {
            Self::Text(v) | Self::Json(v) => v[row].clone(),
            Self::Float(v) => v[row].map(|x| x.to_string()),
            Self::Int(v) => v[row].map(|x| x.to_string()),
            Self::Bool(v) => v[row].map(|x| x.to_string()),
            Self::Bytes(v) => v[row].as_deref().map(hex),
        }
    }

    /// One value as JSON; `None` when it is missing or JSON has no form for it.
    pub fn json(&self, row: usize) -> Option<String> {
        match self {
            Self::Json(v) => v[row].clone(),
            Self::Text(v) => v[row].as_deref().map(|t| Value::from(t).to_string()),
            Self::Bytes(v) => v[row].as_deref().map(|b| Value::from(hex(b)).to_string()),
            Self::Float(v) => v[row].filter(|x| x.is_finite()).map(|x| Value::from(x).to_string()),
            Self::Int(_) | Self::Bool(_) => self.display(row),
        }
    }

    /// The text of a row; `None` when it is missing.
    ///
    /// # Errors
    /// What the cell holds instead, such as "a number (`3`)".
    pub fn text_at(&self, row: usize) -> Result<Option<Cow<'_, str>>, String> {
        match self {
            Self::Text(v) => Ok(v[row].as_deref().map(Cow::Borrowed)),
            _ if self.is_gap(row) => Ok(None),
            Self::Json(v) => match v[row].as_deref().map(serde_json::from_str::<String>) {
                Some(Ok(text)) => Ok(Some(Cow::Owned(text))),
                _ => Err(self.describe(row)),
            },
            Self::Bytes(v) => match v[row].as_deref().map(std::str::from_utf8) {
                Some(Ok(text)) => Ok(Some(Cow::Borrowed(text))),
                _ => Err(self.describe(row)),
            },
            _ => Err(self.describe(row)),
        }
    }

    /// The truth value of a row: true and false, 1 and 0, also as text; `None` when it is missing.
    ///
    /// # Errors
    /// What the cell holds instead.
    pub fn bool_at(&self, row: usize) -> Result<Option<bool>, String> {
        let number = |x: f64| match x {
            0.0 => Ok(Some(false)),
            1.0 => Ok(Some(true)),
            // pandas writes missing truth values so.
            x if x.is_nan() => Ok(None),
            _ => Err(self.describe(row)),
        };
        match self {
            Self::Bool(v) => Ok(v[row]),
            Self::Int(v) => v[row].map_or(Ok(None), |x| number(x as f64)),
            Self::Float(v) => v[row].map_or(Ok(None), number),
            Self::Text(v) => match v[row].as_deref().map(|t| t.trim().to_lowercase()).as_deref() {
                None | Some("") => Ok(None),
                Some("true") => Ok(Some(true)),
                Some("false") => Ok(Some(false)),
                Some(other) => other.parse().map_or(Err(self.describe(row)), number),
            },
            Self::Json(v) => match v[row].as_deref().map(serde_json::from_str) {
                None | Some(Ok(Value::Null)) => Ok(None),
                Some(Ok(Value::Bool(b))) => Ok(Some(b)),
                Some(Ok(Value::Number(n))) => n.as_f64().map_or(Ok(None), number),
                Some(Ok(Value::String(text))) => Self::text([text]).bool_at(0),
                _ => Err(self.describe(row)),
            },
            Self::Bytes(v) => v[row].as_ref().map_or(Ok(None), |_| Err(self.describe(row))),
        }
    }

    /// The number of a row, also one that is written as text; `None` when it is missing.
    ///
    /// # Errors
    /// What the cell holds instead.
    pub fn float_at(&self, row: usize) -> Result<Option<f64>, String> {
        let written = |text: &str| match text.trim() {
            "" => Ok(None),
            text => match text.parse::<f64>() {
                Ok(x) if x.is_finite() => Ok(Some(x)),
                _ => Err(self.describe(row)),
            },
        };
        match self {
            Self::Float(v) => Ok(v[row].filter(|x| !x.is_nan())),
            Self::Int(v) => Ok(v[row].map(|x| x as f64)),
            Self::Text(v) => v[row].as_deref().map_or(Ok(None), written),
            Self::Json(v) => match v[row].as_deref().map(serde_json::from_str) {
                None | Some(Ok(Value::Null)) => Ok(None),
                Some(Ok(Value::Number(n))) => Ok(n.as_f64()),
                Some(Ok(Value::String(text))) => written(&text),
                _ => Err(self.describe(row)),
            },
            Self::Bool(_) | Self::Bytes(_) if self.is_gap(row) => Ok(None),
            Self::Bool(_) | Self::Bytes(_) => Err(self.describe(row)),
        }
    }

    /// What a cell holds, for an error: "a number (`3`)", "a list of {role, content}".
    pub fn describe(&self, row: usize) -> String {
        let form = match self {
            _ if self.is_gap(row) => return "nothing".into(),
            Self::Text(_) => "the text",
            Self::Float(_) | Self::Int(_) => "a number",
            Self::Bool(_) => "a truth value",
            Self::Bytes(_) => "bytes that are no UTF-8 text",
            Self::Json(v) => return describe_json(v[row].as_deref().unwrap_or("null")),
        };
        format!("{form} ({})", shown(&self.display(row).unwrap_or_default()))
    }
}

fn describe_json(text: &str) -> String {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) if text.starts_with('"') => {
            return format!("a text with half a character ({})", shown(text));
        }
        Err(_) => return format!("a number beyond all types ({})", shown(text)),
    };
    let form = match &value {
        Value::Null => return "null".into(),
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "the text",
        Value::Array(list) if list.first().is_some_and(|m| m.get("role").is_some()) => {
            return "a list of {role, content}".into();
        }
        Value::Array(list) if list.first().is_some_and(|m| m.get("from").is_some()) => {
            return "a list of {from, value}".into();
        }
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    };
    format!("{form} ({})", shown(text))
}

/// The beginning of a cell in code marks.
fn shown(text: &str) -> String {
    let line = text.replace(['\n', '\r'], " ");
    match line.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("`{}…`", &line[..at]),
        None => format!("`{line}`"),
    }
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn exact(values: &[Option<i64>]) -> bool {
    values.iter().flatten().all(|x| is_exact(*x))
}

/// Whether a whole number keeps its value as a floating-point number.
pub(super) fn is_exact(x: i64) -> bool {
    (-EXACT..=EXACT).contains(&x)
}

fn as_bytes(texts: Vec<Option<String>>) -> Vec<Option<Vec<u8>>> {
    texts.into_iter().map(|text| text.map(String::into_bytes)).collect()
}

fn as_floats(values: &[Option<i64>]) -> Vec<Option<f64>> {
    values.iter().map(|v| v.map(|x| x as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<T>(column: &Column, of: impl Fn(&Column, usize) -> T) -> Vec<T> {
        (0..column.len()).map(|row| of(column, row)).collect()
    }

    #[test]
    fn truth_has_five_spellings_and_no_sixth() {
        let expected = [Ok(Some(true)), Ok(Some(false)), Ok(None)];
        let columns = [
            Column::Bool(vec![Some(true), Some(false), None]),
            Column::Int(vec![Some(1), Some(0), None]),
            Column::Float(vec![Some(1.0), Some(0.0), Some(f64::NAN)]),
            Column::Text(vec![Some("True".into()), Some("0.0".into()), Some(String::new())]),
            Column::Json(vec![Some("\"true\"".into()), Some("0".into()), None]),
        ];
        for column in columns {
            assert_eq!(all(&column, Column::bool_at), expected, "{column:?}");
        }
        let odd = [
            Column::Int(vec![Some(2)]),
            Column::Float(vec![Some(0.5)]),
            Column::text(["tie"]),
            Column::text(["yes"]),
            Column::Json(vec![Some("[true]".into())]),
            Column::Bytes(vec![Some(vec![1])]),
        ];
        for column in odd {
            assert!(column.bool_at(0).is_err(), "{column:?}");
        }
        assert_eq!(Column::text(["maybe"]).bool_at(0), Err("the text (`maybe`)".into()));
    }

    #[test]
    fn numbers_may_be_written_and_nothing_else_is_one() {
        let text = Column::Text(vec![Some(" 1.5".into()), Some(String::new()), None]);
        assert_eq!(all(&text, Column::float_at), [Ok(Some(1.5)), Ok(None), Ok(None)]);
        assert_eq!(Column::Int(vec![Some(-2)]).float_at(0), Ok(Some(-2.0)));
        assert_eq!(Column::Json(vec![Some("\"3\"".into())]).float_at(0), Ok(Some(3.0)));
        for odd in [Column::text(["much"]), Column::text(["inf"]), Column::bools([true])] {
            assert!(odd.float_at(0).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn what_is_no_text_says_what_it_is() {
        let cell = |json: &str| Column::Json(vec![Some(json.into())]).text_at(0).map(|_| ());
        let said = |json: &str| cell(json).expect_err(json);
        assert_eq!(said(r#"[{"role":"user","content":"a"}]"#), "a list of {role, content}");
        assert_eq!(said(r#"[{"from":"human","value":"a"}]"#), "a list of {from, value}");
        assert_eq!(said("[1]"), "a list (`[1]`)");
        assert_eq!(said(r#"{"a":1}"#), r#"a map (`{"a":1}`)"#);
        assert_eq!(said("1e400"), "a number beyond all types (`1e400`)");
        assert_eq!(said("18446744073709551615"), "a number (`18446744073709551615`)");
        assert_eq!(Column::Int(vec![Some(3)]).text_at(0), Err("a number (`3`)".into()));
        assert_eq!(
            Column::Bytes(vec![Some(vec![255, 0])]).text_at(0),
            Err("bytes that are no UTF-8 text (`ff00`)".into())
        );
        // One text among other things is still a text.
        let mixed = Column::Json(vec![Some("\"é\"".into()), Some("3".into()), None]);
        assert_eq!(mixed.text_at(0), Ok(Some("é".into())));
        assert!(mixed.text_at(1).is_err());
        assert_eq!(mixed.text_at(2), Ok(None));
    }

    #[test]
    fn columns_of_two_types_keep_every_value() {
        let ints = |v: &[i64]| Column::ints(v.iter().copied());
        assert_eq!(Column::floats([0.5]).stack(ints(&[2])), Column::floats([0.5, 2.0]));
        assert_eq!(
            Column::floats([1.5]).stack(ints(&[9_007_199_254_740_993])),
            Column::Json(vec![Some("1.5".into()), Some("9007199254740993".into())])
        );
        assert_eq!(
            Column::text(["a"]).stack(Column::bools([true])),
            Column::Json(vec![Some("\"a\"".into()), Some("true".into())])
        );
        let bytes = Column::Bytes(vec![Some(vec![255])]);
        let both = Column::Bytes(vec![Some(b"a".to_vec()), Some(vec![255])]);
        assert_eq!(Column::text(["a"]).stack(bytes.clone()), both);
        assert_eq!(both.text_at(0), Ok(Some("a".into())));
        assert!(both.text_at(1).is_err());
        // No JSON says what they are.
        let lost = Column::Float(vec![Some(f64::NAN)]).stack(Column::text(["a"]));
        assert_eq!((lost.len(), lost.values()), (2, 1));
        assert_eq!(bytes.stack(ints(&[1])).values(), 1);
        // A column without values takes the type of the other.
        let gaps = Column::Text(vec![None]);
        assert_eq!(gaps.clone().stack(ints(&[1])), Column::Int(vec![None, Some(1)]));
        assert_eq!(ints(&[1]).stack(gaps), Column::Int(vec![Some(1), None]));
    }
}
