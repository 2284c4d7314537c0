//! AMF0, the notation of RTMP's commands (Adobe, "Action Message Format -- AMF 0", 2006).
//!
//! What is read is bounded by the bytes at hand: a length or count inside them is only ever compared with what is left.

/// Objects in objects that are followed.
const DEPTH_MAX: usize = 8;

/// A value of a command. What nobody here asks for (dates, references, …) is an error: no server sends it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Bool(bool),
    Text(String),
    Object(Vec<(String, Value)>),
    List(Vec<Value>),
    Null,
}

impl Value {
    /// A text property of an object.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let Value::Object(fields) = self else { return None };
        fields.iter().find_map(|(key, value)| match value {
            Value::Text(text) if key == name => Some(text.as_str()),
            _ => None,
        })
    }

    /// Appends it as bytes.
    ///
    /// # Panics
    /// When a text is longer than 65,535 bytes: ours are not.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Number(number) => {
                out.push(0);
                out.extend(number.to_be_bytes());
            }
            Value::Bool(yes) => out.extend([1, u8::from(*yes)]),
            Value::Text(text) => {
                out.push(2);
                write_text(text, out);
            }
            Value::Object(fields) => {
                out.push(3);
                for (key, value) in fields {
                    write_text(key, out);
                    value.write(out);
                }
                out.extend([0, 0, 9]);
            }
            Value::Null => out.push(5),
            Value::List(values) => {
                out.push(10);
                out.extend((values.len() as u32).to_be_bytes());
                values.iter().for_each(|value| value.write(out));
            }
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    assert!(
        text.len() <= usize::from(u16::MAX),
        "an AMF text has two bytes of length"
    );
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// All values of a command, one after another.
pub(super) fn read_all(mut bytes: &[u8]) -> Result<Vec<Value>, String> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(read(&mut bytes, 0)?);
    }
    Ok(values)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes
        .split_at_checked(count)
        .ok_or_else(|| format!("an AMF value ends {} bytes early", count - bytes.len()))?;
    *bytes = rest;
    Ok(taken)
}

fn number(bytes: &mut &[u8], count: usize) -> Result<usize, String> {
    let digits = take(bytes, count)?;
    Ok(digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)))
}

fn text(bytes: &mut &[u8], digits: usize) -> Result<String, String> {
    let count = number(bytes, digits)?;
    Ok(String::from_utf8_lossy(take(bytes, count)?).into_owned())
}

fn read(bytes: &mut &[u8], depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err(format!("AMF objects more than {DEPTH_MAX} deep"));
    }
    Ok(match take(bytes, 1)?[0] {
        0 => {
            let mut eight = [0; 8];
            eight.copy_from_slice(take(bytes, 8)?);
            Value::Number(f64::from_be_bytes(eight))
        }
        1 => Value::Bool(take(bytes, 1)?[0] != 0),
        2 => Value::Text(text(bytes, 2)?),
        3 => Value::Object(fields(bytes, depth)?),
        5 | 6 => Value::Null,
        8 => {
            // Its count is a hint: the end marker rules (AMF 0, 2.10).
            take(bytes, 4)?;
            Value::Object(fields(bytes, depth)?)
        }
        10 => {
            let count = number(bytes, 4)?;
            let mut values = Vec::new();
            for _ in 0..count {
                values.push(read(bytes, depth + 1)?);
            }
            Value::List(values)
        }
        12 => Value::Text(text(bytes, 4)?),
        other => return Err(format!("expected an AMF value, got one of kind {other}")),
    })
}

fn fields(bytes: &mut &[u8], depth: usize) -> Result<Vec<(String, Value)>, String> {
    let mut fields = Vec::new();
    loop {
        let key = text(bytes, 2)?;
        if key.is_empty() && bytes.first() == Some(&9) {
            take(bytes, 1)?;
            return Ok(fields);
        }
        fields.push((key, read(bytes, depth + 1)?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<f64>()
                .prop_filter("comparable", |n| !n.is_nan())
                .prop_map(Value::Number),
            any::<bool>().prop_map(Value::Bool),
            "[a-z]{0,8}".prop_map(Value::Text),
            Just(Value::Null),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(("[a-z]{1,5}", inner.clone()), 0..4).prop_map(Value::Object),
                proptest::collection::vec(inner, 0..4).prop_map(Value::List),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in values()) {
            let mut bytes = Vec::new();
            value.write(&mut bytes);
            prop_assert_eq!(read_all(&bytes), Ok(vec![value]));
        }

        #[test]
        fn hostile_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_all(&bytes);
        }
    }

    #[test]
    fn lengths_beyond_the_bytes_and_endless_depth_are_errors() {
        assert!(read_all(&[2, 0xff, 0xff, b'a']).is_err());
        assert!(read_all(&[10, 0xff, 0xff, 0xff, 0xff, 5]).is_err());
        let deep = [3, 0, 1, b'a'].repeat(DEPTH_MAX + 2);
        assert!(read_all(&deep).is_err_and(|why| why.contains("deep")));
        assert!(read_all(&[7]).is_err());
    }

    #[test]
    fn a_property_is_found_by_its_name() {
        let object = Value::Object(vec![
            ("code".into(), Value::Text("x".into())),
            ("n".into(), Value::Null),
        ]);
        assert_eq!(
            (object.text("code"), object.text("n"), Value::Null.text("code")),
            (Some("x"), None, None)
        );
    }
}
