//! JSON from outside, read with limits that its length does not give: each value of it takes more memory than text, and
//! a name that stands twice means one thing here and another to whoever read it before.

use serde::{
    de::{
        DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Map, Number, Value};
use std::{cell::Cell, fmt};
use tokio::task::JoinError;

/// Values in one text: each object, list, text, number, true, false, null. (Each takes 32 to 100 bytes of memory.)
pub const VALUES_MAX: usize = 50_000;

/// Work on a longer text is done on a thread where nobody else waits meanwhile.
const IN_PLACE_BYTES_MAX: usize = 64 << 10;

/// Work on a text of so many bytes, wherever it keeps nobody waiting.
///
/// # Errors
/// Where the work panicked.
pub async fn worked_on<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if bytes <= IN_PLACE_BYTES_MAX {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// Reads a text. (How deep it may be is serde_json's affair: 128.)
///
/// # Errors
/// Where it is no JSON, names something twice, or holds more than [`VALUES_MAX`].
pub fn read(text: &[u8]) -> Result<Value, Error> {
    read_limited(text, true)
}

/// The same of what a plugin wrote. Nobody read it before, and of a name that stands twice the last counts.
///
/// # Errors
/// Where it is no JSON, or holds more than [`VALUES_MAX`].
pub fn read_output(text: &[u8]) -> Result<Value, Error> {
    read_limited(text, false)
}

fn read_limited(text: &[u8], names_once: bool) -> Result<Value, Error> {
    let left = &Cell::new(VALUES_MAX);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Limited { left, names_once }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Makes values while there are some left.
#[derive(Clone, Copy)]
struct Limited<'a> {
    left: &'a Cell<usize>,
    names_once: bool,
}

impl<'de> DeserializeSeed<'de> for Limited<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left =
            self.left.get().checked_sub(1).ok_or_else(|| {
                D::Error::custom(format!("it holds more than {VALUES_MAX} values"))
            })?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Limited<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(list.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if self.names_once && object.contains_key(&name) {
                return Err(A::Error::custom("a name stands twice in one object"));
            }
            let value = fields.next_value_seed(self)?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

/// A value to make a type of, where only an object is taken for a struct: serde takes a list of its fields too.
pub struct Strict(pub Value);

impl<'de> Deserializer<'de> for Strict {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Strict));
                let made = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(made)
            }
            Value::Object(fields) => {
                let fields = fields
                    .into_iter()
                    .map(|(name, value)| (name, Strict(value)));
                let mut fields = MapDeserializer::new(fields);
                let made = visitor.visit_map(&mut fields)?;
                fields.end()?;
                Ok(made)
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(_) => self.deserialize_any(visitor),
            Value::Array(_) => Err(Error::invalid_type(Unexpected::Seq, &visitor)),
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Strict {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, de::DeserializeOwned};
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn so_many_values_are_read_and_no_more() {
        let list = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
        assert!(read(list(VALUES_MAX).as_bytes()).is_ok());
        let told = read(list(VALUES_MAX + 1).as_bytes()).unwrap_err();
        assert!(
            told.to_string().contains("more than 50000 values"),
            "{told}"
        );
        let objects = format!("{}1{}", r#"{"a":["#.repeat(60), "]}".repeat(60));
        assert!(read(objects.as_bytes()).is_ok());
        let deep = "[".repeat(129) + &"]".repeat(129);
        assert!(read(deep.as_bytes()).is_err());
        assert!(read(b"{} {}").is_err(), "one value a text");
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads() {
        let text = br#"{"a":[1,-2,1.5e300,0.1,18446744073709551615,-0.0,true,null,"\u00e9\"",{}],"b":{"c":"d"}}"#;
        let plain: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(read(text).unwrap(), plain);
    }

    #[test]
    fn a_name_stands_once_in_an_object() {
        for twice in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":2,"\u0061":3}}]"#] {
            let told = read(twice.as_bytes()).unwrap_err().to_string();
            assert!(told.contains("twice"), "{told}");
        }
        assert!(read(br#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#).is_ok());
    }

    #[test]
    fn of_a_name_that_stands_twice_in_an_output_the_last_counts() {
        let read = read_output(br#"{"a":1,"b":{"c":2,"c":3},"a":4}"#).unwrap();
        assert_eq!(read, json!({ "a": 4, "b": { "c": 3 } }));
        let many = format!("[{}0]", "0,".repeat(VALUES_MAX));
        assert!(read_output(many.as_bytes()).is_err());
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Small,
        Sized(u8),
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        number: Option<u8>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        all: Vec<Inner>,
        #[serde(default)]
        by_name: BTreeMap<String, Inner>,
        kind: Option<Kind>,
        pair: Option<(u8, f32)>,
        id: Option<uuid::Uuid>,
    }

    fn made<T: DeserializeOwned>(value: Value) -> Result<T, String> {
        T::deserialize(Strict(value)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_is_no_struct_wherever_it_stands() {
        for wrong in [
            json!([null, [], {}, null, null, null]),
            json!({ "inner": [7] }),
            json!({ "all": [{ "number": 7 }, [7]] }),
            json!({ "by_name": { "a": [7] } }),
            json!({ "pair": [1, 2, 3] }),
            json!({ "inner": "text" }),
        ] {
            let told = made::<Outer>(wrong.clone()).unwrap_err();
            assert!(told.contains("expected"), "{wrong}: {told}");
        }
        let id = uuid::Uuid::nil();
        let all = json!({ "inner": { "number": 7 }, "all": [{ "number": null }], "by_name": { "a": {} },
            "kind": { "sized": 3 }, "pair": [1, 2], "id": id });
        let outer = made::<Outer>(all).unwrap();
        assert_eq!(outer.inner, Some(Inner { number: Some(7) }));
        assert_eq!(outer.all, [Inner { number: None }]);
        assert_eq!(
            (outer.kind, outer.pair),
            (Some(Kind::Sized(3)), Some((1, 2.0)))
        );
        assert_eq!((outer.by_name.len(), outer.id), (1, Some(id)));
        assert_eq!(made::<Kind>(json!("small")), Ok(Kind::Small));
        assert_eq!(made::<Option<Inner>>(json!(null)), Ok(None));
        assert_eq!(
            made::<Value>(json!([1, { "a": [] }])),
            Ok(json!([1, { "a": [] }]))
        );
    }
}
