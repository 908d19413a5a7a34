//! Event files that TensorBoard reads: scalars by step, as records with checksums.
//! Does not know where the figures come from.

use prost::Message;

/// One figure at one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    pub tag: String,
    pub step: i64,
    pub value: f64,
}

/// The few fields of `tensorflow.Event` that scalars need.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The bytes of an event file. `wall_time`: seconds since 1970; the figures of one step share an
/// event, in the order given.
#[must_use]
pub fn event_file(wall_time: f64, scalars: &[Scalar]) -> Vec<u8> {
    let version =
        Event { wall_time, file_version: Some("brain.Event:2".into()), ..Event::default() };
    let mut out = record(&version.encode_to_vec());
    out.extend(events(wall_time, scalars));
    out
}

/// The same to append to such a file.
#[must_use]
pub fn events(wall_time: f64, scalars: &[Scalar]) -> Vec<u8> {
    let mut out = Vec::new();
    for of_step in scalars.chunk_by(|a, b| a.step == b.step) {
        #[expect(clippy::cast_possible_truncation, reason = "the format holds single precision")]
        let value = |s: &Scalar| Value { tag: s.tag.clone(), simple_value: Some(s.value as f32) };
        let summary = Some(Summary { value: of_step.iter().map(value).collect() });
        let event = Event { wall_time, step: of_step[0].step, summary, ..Event::default() };
        out.extend(record(&event.encode_to_vec()));
    }
    out
}

/// A TFRecord: length, its checksum, the data, its checksum; all little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

/// CRC-32C, turned by 15 bits and shifted by a constant: a checksum of checksums would be weak.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of each record, its checksums verified bit by bit.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(12);
            let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
            let sum = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap());
            assert_eq!(sum(&head[8..]), slow_masked(&head[..8]));
            let (data, rest) = rest.split_at(length);
            assert_eq!(sum(&rest[..4]), slow_masked(data));
            out.push(data.to_vec());
            bytes = &rest[4..];
        }
        out
    }

    /// CRC-32C by its definition: polynomial 0x1EDC6F41, bits reflected.
    fn slow_masked(data: &[u8]) -> u32 {
        let mut crc = !0_u32;
        for byte in data {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        let crc = !crc;
        crc.rotate_right(15).wrapping_add(0xa282_ead8)
    }

    #[test]
    fn records_hold_what_was_put_in_with_sound_checksums() {
        // RFC 3720, B.4: 32 bytes of zero.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        let scalar = |tag: &str, step: i64, value: f64| Scalar { tag: tag.to_owned(), step, value };
        let scalars = [scalar("loss", 1, 0.5), scalar("lr", 1, 1e-3), scalar("loss", 300, -2.0)];
        let records = records(&event_file(12.5, &scalars));
        let events: Vec<Event> =
            records.iter().map(|r| Event::decode(r.as_slice()).unwrap()).collect();
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!((events[1].step, events[2].step), (1, 300));
        let values = |e: &Event| e.summary.clone().unwrap().value;
        assert_eq!(values(&events[1])[1].tag, "lr");
        assert_eq!(values(&events[2])[0].simple_value, Some(-2.0));
        // By hand, from the wire format: field 1 is a double, field 2 a varint, field 5 a message
        // with a message that holds "loss" and 0x3f000000.
        let single = event_file(0.0, &[scalar("loss", 1, 0.5)]);
        let tail = b"\x10\x01\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f";
        assert!(single[..single.len() - 4].ends_with(tail));
    }
}
