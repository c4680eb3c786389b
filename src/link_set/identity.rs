//! What tells links with the same ids apart, and the numbers that stand for links.

use super::record::Ids;
use opentelemetry::trace::Link;
use opentelemetry::{Array, KeyValue, Value};
use std::hash::{BuildHasher, Hasher};

/// Returns whether two links have the same attributes, in any order. A number that is none is the
/// same as itself, unlike by `==`: links that were never the same would share one hash.
pub(super) fn same_attributes(one: &Link, other: &Link) -> bool {
    let (one, other) = (&one.attributes, &other.attributes);
    let within = |some: &[KeyValue], all: &[KeyValue]| {
        some.iter().all(|attribute| all.iter().any(|other| same_attribute(attribute, other)))
    };
    one.len() == other.len() && within(one, other) && within(other, one)
}

fn same_attribute(one: &KeyValue, other: &KeyValue) -> bool {
    one.key == other.key
        && match (&one.value, &other.value) {
            (Value::F64(one), Value::F64(other)) => bits(*one) == bits(*other),
            (Value::Array(Array::F64(one)), Value::Array(Array::F64(other))) => {
                one.iter().map(|value| bits(*value)).eq(other.iter().map(|value| bits(*value)))
            }
            (one, other) => one == other,
        }
}

/// Returns a hash of the attributes that does not depend on their order. Equal ones have the same.
pub(super) fn hash_attributes(hashes: &impl BuildHasher, attributes: &[KeyValue]) -> u64 {
    attributes.iter().fold(0, |sum: u64, attribute| {
        let mut hasher = hashes.build_hasher();
        write_text(&mut hasher, attribute.key.as_str());
        write_value(&mut hasher, &attribute.value);
        sum.wrapping_add(hasher.finish())
    })
}

fn write_value(hasher: &mut impl Hasher, value: &Value) {
    match value {
        Value::Bool(value) => hasher.write_u64(u64::from(*value)),
        Value::I64(value) => hasher.write_u64(*value as u64),
        Value::F64(value) => hasher.write_u64(bits(*value)),
        Value::Array(Array::F64(values)) => {
            values.iter().for_each(|value| hasher.write_u64(bits(*value)));
        }
        other => write_text(hasher, &other.as_str()),
    }
}

/// Returns the bits of a number. The two zeros are equal, and have the same. Arithmetic would unify
/// them, too, but may change the bits of what is not a number.
fn bits(value: f64) -> u64 {
    if value == 0.0 { 0 } else { value.to_bits() }
}

fn write_text(hasher: &mut impl Hasher, text: &str) {
    hasher.write(text.as_bytes());
    hasher.write_u64(text.len() as u64);
}

/// A hasher with the same results on every machine and in every release: SplitMix64's finaliser,
/// applied to each word. Not for tables: its seed is no secret.
#[derive(Clone, Copy)]
pub(super) struct Mix(pub(super) u64);

impl Mix {
    pub(super) fn write_ids(&mut self, ids: &Ids) {
        self.write(&ids.trace);
        self.write(&ids.span);
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_be_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mut mixed = (self.0 ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.0 = mixed ^ mixed >> 31;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Starts each hash with the seed.
impl BuildHasher for Mix {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::SpanContext;

    fn link(attributes: &[KeyValue]) -> Link {
        Link::new(SpanContext::NONE, attributes.to_vec(), 0)
    }

    /// Arithmetic may change the bits of what is not a number: Miri does, and processors make a
    /// signaling one a quiet one.
    #[test]
    fn nan_keeps_its_bits() {
        for nan in [0x7FF0_0000_0000_0001, 0xFFF8_0000_0000_0000] {
            assert_eq!(bits(f64::from_bits(nan)), nan);
        }
    }

    /// Equal attributes have the same hash, and each of these differs from all others.
    #[test]
    fn hash_follows_equality() {
        let floats = |values: &[f64]| Value::Array(values.to_vec().into());
        let sets = [
            vec![],
            vec![KeyValue::new("a", 1)],
            vec![KeyValue::new("a", 2)],
            vec![KeyValue::new("b", 1)],
            vec![KeyValue::new("a", "1b")],
            vec![KeyValue::new("a1", "b")],
            vec![KeyValue::new("a", 0.0)],
            vec![KeyValue::new("a", 0.5)],
            vec![KeyValue::new("a", floats(&[0.0, 1.0]))],
            vec![KeyValue::new("a", floats(&[1.0, 0.0]))],
            vec![KeyValue::new("a", Value::Array(vec![1_i64, 2].into()))],
            vec![KeyValue::new("a", 1), KeyValue::new("b", 1)],
            vec![KeyValue::new("a", 1), KeyValue::new("a", 1)],
        ];
        let hash = |set: &[KeyValue]| hash_attributes(&Mix(5), set);
        for (place, set) in sets.iter().enumerate() {
            for (other_place, other) in sets.iter().enumerate() {
                let same = place == other_place;
                assert_eq!(same_attributes(&link(set), &link(other)), same, "{set:?} {other:?}");
                assert_eq!(hash(set) == hash(other), same, "{set:?} {other:?}");
            }
        }
        for (one, other) in [
            (vec![KeyValue::new("a", 0.0)], vec![KeyValue::new("a", -0.0)]),
            (vec![KeyValue::new("a", f64::NAN)], vec![KeyValue::new("a", f64::NAN)]),
            (
                vec![KeyValue::new("a", floats(&[f64::NAN]))],
                vec![KeyValue::new("a", floats(&[f64::NAN]))],
            ),
            (vec![KeyValue::new("a", floats(&[0.0]))], vec![KeyValue::new("a", floats(&[-0.0]))]),
            (
                vec![KeyValue::new("a", 1), KeyValue::new("b", "c")],
                vec![KeyValue::new("b", "c"), KeyValue::new("a", 1)],
            ),
        ] {
            assert!(same_attributes(&link(&one), &link(&other)), "{one:?} {other:?}");
            assert_eq!(hash(&one), hash(&other), "{one:?} {other:?}");
        }
    }

    /// What a seed chooses must not change from release to release.
    #[test]
    fn mix_is_stable() {
        let mut mix = Mix(0);
        mix.write_ids(&Ids { trace: 1_u128.to_be_bytes(), span: 2_u64.to_be_bytes() });
        mix.write_u64(3);
        assert_eq!(mix.finish(), 0x1467_336e_db96_2514);
    }
}
