//! A value as a type that is declared elsewhere, such as one of Kubernetes' own: serde asks for what the
//! type wants, and the tree gives it as it gives our own fields, with the same strictness and places.
//!
//! Kubernetes' types take unknown keys and do without required ones, so neither is left to them.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, IntoDeserializer, Visitor};
use serde::{Serialize, forward_to_deserialize_any};
use serde_json::Value as Json;

use super::value::{Keys, Value};
use crate::job_config::problem::Problems;
use crate::job_config::quantity::Quantity;
use crate::job_config::yaml::{Kind, Style};

/// None where there is a problem with it.
pub(in crate::job_config) fn read<T: DeserializeOwned + Serialize>(
    value: &Value<'_>,
    problems: &mut Problems,
) -> Option<T> {
    let before = problems.error_count();
    let asked = Asked {
        value: value.clone(),
        problems: &RefCell::new(problems),
    };
    let read = T::deserialize(asked);
    let read = read.ok().filter(|_| problems.error_count() == before)?;
    if let Ok(written) = serde_json::to_value(&read) {
        missing(value, &written, problems);
    }
    (problems.error_count() == before).then_some(read)
}

/// Of the keys that a type always writes, each is a required one.
fn missing(value: &Value<'_>, written: &Json, problems: &mut Problems) {
    match written {
        Json::Object(fields) => {
            for (name, written) in fields {
                match value.get(name) {
                    Some(field) => missing(&field, written, problems),
                    None => problems.add(value.error(format!("missing field `{name}`"))),
                }
            }
        }
        Json::Array(items) => {
            for (item, written) in value.items().iter().zip(items) {
                missing(item, written, problems);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// What is wrong is among the problems; the reading goes on with an empty value where it can.
struct Asked<'n, 'p> {
    value: Value<'n>,
    problems: &'p RefCell<&'p mut Problems>,
}

/// Ends the reading of a value.
#[derive(Debug)]
enum Refused {
    /// Is among the problems.
    Told,
    Because(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told => f.write_str("invalid value"),
            Self::Because(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Refused {}

impl Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Because(message.to_string())
    }
}

impl<'n> Asked<'n, '_> {
    fn of(&self, value: Value<'n>) -> Self {
        Self {
            value,
            problems: self.problems,
        }
    }

    fn told<T>(&self, result: Result<T, Refused>) -> Result<T, Refused> {
        result.map_err(|refused| {
            if let Refused::Because(reason) = refused {
                let mut problems = self.problems.borrow_mut();
                problems.add(self.value.error(reason));
            }
            Refused::Told
        })
    }

    /// Zero where there is none.
    fn number<N: TryFrom<i128> + Default>(&self) -> N {
        let mut problems = self.problems.borrow_mut();
        let Some(number) = self.value.whole_number("a whole number", &mut problems) else {
            return N::default();
        };
        N::try_from(number).unwrap_or_else(|_| {
            let bits = 8 * size_of::<N>();
            let message = format!("expected a whole number of at most {bits} bits");
            problems.add(self.value.error(message));
            N::default()
        })
    }
}

impl IntoDeserializer<'_, Refused> for Asked<'_, '_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Asked<'_, '_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.value.node.kind {
            Kind::Mapping(_) => self.deserialize_map(visitor),
            Kind::Sequence(_) => self.deserialize_seq(visitor),
            Kind::Scalar(scalar) if scalar.is_null() => self.told(visitor.visit_unit()),
            Kind::Scalar(scalar) => {
                let plain = scalar.style == Style::Plain;
                let number = scalar
                    .whole_number()
                    .and_then(|number| number.try_into().ok());
                match (number, scalar.boolean()) {
                    (Some(number), _) if plain => self.told(visitor.visit_i64(number)),
                    (None, Some(boolean)) if plain => self.told(visitor.visit_bool(boolean)),
                    _ => self.deserialize_string(visitor),
                }
            }
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let text = self.value.text(&mut self.problems.borrow_mut());
        self.told(visitor.visit_string(text.unwrap_or_default()))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let boolean = self.value.boolean(&mut self.problems.borrow_mut());
        self.told(visitor.visit_bool(boolean.unwrap_or_default()))
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let number = self.number();
        self.told(visitor.visit_i32(number))
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let number = self.number();
        self.told(visitor.visit_i64(number))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        if name == "Quantity" {
            let mut problems = self.problems.borrow_mut();
            self.value.parsed(Quantity::parse, &mut problems);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let items = self
            .value
            .list("a list", &mut self.problems.borrow_mut())
            .into_iter()
            .map(|item| self.of(item));
        self.told(visitor.visit_seq(SeqDeserializer::new(items)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let entries = self
            .value
            .entries(&mut self.problems.borrow_mut())
            .into_iter()
            .map(|(key, entry)| (key, self.of(self.value.below(key, &entry.value))));
        self.told(visitor.visit_map(MapDeserializer::new(entries)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let fields = {
            let mut problems = self.problems.borrow_mut();
            self.value
                .fields(known, Keys::Strict, |_| None, &mut problems)
        };
        let fields = fields.as_ref();
        let entries = known
            .iter()
            .filter_map(|name| Some((*name, self.of(fields?.get(name)?))));
        self.told(visitor.visit_map(MapDeserializer::new(entries)))
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::job_config::yaml;

    /// Takes whatever comes, as Kubernetes' types do.
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Loose {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        read_only: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<i32>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        items: Vec<Loose>,
        #[serde(skip_serializing_if = "Json::is_null")]
        any: Json,
    }

    impl Default for Loose {
        fn default() -> Self {
            Self {
                name: String::new(),
                read_only: None,
                mode: None,
                items: Vec::new(),
                any: Json::Null,
            }
        }
    }

    fn read_text(text: &str) -> (Option<Loose>, String) {
        let tree = yaml::parse(text).unwrap().unwrap();
        let mut problems = Problems::default();
        let read = read(&Value::top(&tree), &mut problems);
        let errors = problems.finish().1;
        (read, errors.map_or(String::new(), |e| e.to_string()))
    }

    #[test]
    fn a_type_is_filled_as_yaml_is_read_elsewhere() {
        let text =
            "{name: 5, readOnly: 'yes', mode: 0o644, items: [{name: x}], any: {a: [1, x, on]}}";
        let (read, errors) = read_text(text);
        assert_eq!(errors, "");
        let read = serde_json::to_string(&read).unwrap();
        insta::assert_snapshot!(read, @r#"{"name":"5","readOnly":true,"mode":420,"items":[{"name":"x"}],"any":{"a":[1,"x",true]}}"#);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_its_place() {
        let text = "\
nmae: x
mode: 99999999999
readOnly: perhaps
items:
  - {name: [], items: {}}
  - x
  - ~
  - {name: a, name: b}
";
        insta::assert_snapshot!(read_text(text).1, @"
        job/config.yaml:1:1: nmae: unknown field `nmae`, expected one of `name`, `readOnly`, `mode`, `items`, `any` (did you mean `name`?)
        job/config.yaml:2:7: mode: expected a whole number of at most 32 bits
        job/config.yaml:3:11: readOnly: expected `true` or `false`
        job/config.yaml:5:12: items[0].name: expected a text
        job/config.yaml:5:23: items[0].items: expected a list
        job/config.yaml:6:5: items[1]: expected a mapping of keys and values
        job/config.yaml:7:5: items[2]: expected a mapping of keys and values
        job/config.yaml:8:15: items[3]: duplicate key `name`, expected each key once
        ");
        insta::assert_snapshot!(read_text("items: [{mode: 1}, {name: }]").1, @"
        job/config.yaml:1:1: missing field `name`
        job/config.yaml:1:10: items[0]: missing field `name`
        job/config.yaml:1:21: items[1]: missing field `name`
        ");
    }
}
