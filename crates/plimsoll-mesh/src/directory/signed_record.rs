//! What a node publishes about itself, signed with its key.
//!
//! Gossip passes through other nodes, so a record counts only with the signature of the node it names. Three kinds of keys,
//! all ASCII:
//!
//! | key | value |
//! |---|---|
//! | `n` | public key and listening address |
//! | `l` | the lease: a counter that rises, and how long it holds; its change renews all names of the node |
//! | `s/NAME` | that the node provides the service, and whether its calls may run twice |
//!
//! A signature covers kind, realm, node and generation (one incarnation of the node), so that no record can be moved to
//! another.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::{Identity, IdentityError, PublicKey, Signature};
use crate::names::{NodeId, ServiceName};

/// The key of the node's record.
pub(crate) const NODE: &str = "n";
/// The key of the lease.
pub(crate) const LEASE: &str = "l";
/// What the keys of services begin with.
pub(crate) const SERVICE: &str = "s/";

/// The node and incarnation that a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    pub(crate) realm: &'a str,
    pub(crate) node: NodeId,
    pub(crate) generation: u64,
}

/// The node's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeRecord {
    pub(crate) key: PublicKey,
    pub(crate) listens: Option<SocketAddr>,
}

/// The lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) counter: u64,
    pub(crate) ttl_ms: u32,
}

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceRecord {
    pub(crate) sequence: u64,
    pub(crate) idempotent: bool,
}

/// A record that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record is not of this version, or not signed by the node it names")]
pub(crate) struct InvalidRecord;

impl Lease {
    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms.into())
    }
}

/// What is signed.
#[derive(Serialize)]
enum Claim<'a> {
    Node { point: &'a [u8], listens: Option<SocketAddr> },
    Lease(Lease),
    Service { name: &'a str, record: ServiceRecord },
}

impl Origin<'_> {
    /// Writes this node's record.
    pub(crate) fn sign_node(&self, identity: &Identity, listens: Option<SocketAddr>) -> Result<String, IdentityError> {
        let key = identity.public_key();
        let signature = self.sign(identity, &Claim::Node { point: key.as_bytes(), listens })?;
        let listens = listens.map_or_else(|| "-".to_owned(), |address| address.to_string());
        Ok(format!("1 {} {listens} {}", hex::encode(key.as_bytes()), hex::encode(signature.as_bytes())))
    }

    /// Writes this node's lease.
    pub(crate) fn sign_lease(&self, identity: &Identity, lease: Lease) -> Result<String, IdentityError> {
        let signature = self.sign(identity, &Claim::Lease(lease))?;
        Ok(format!("1 {} {} {}", lease.counter, lease.ttl_ms, hex::encode(signature.as_bytes())))
    }

    /// Writes the record of a service of this node.
    pub(crate) fn sign_service(
        &self,
        identity: &Identity,
        name: &ServiceName,
        record: ServiceRecord,
    ) -> Result<String, IdentityError> {
        let signature = self.sign(identity, &Claim::Service { name: name.as_str(), record })?;
        let idempotent = if record.idempotent { "i" } else { "-" };
        Ok(format!("1 {} {idempotent} {}", record.sequence, hex::encode(signature.as_bytes())))
    }

    /// Reads a node's record: its key must be the node's, and have signed it.
    pub(crate) fn verify_node(&self, value: &str) -> Result<NodeRecord, InvalidRecord> {
        let [key, listens, signature] = fields(value)?;
        let key = PublicKey::from_point(&hex::decode(key).map_err(|_| InvalidRecord)?).map_err(|_| InvalidRecord)?;
        if key.node_id() != self.node {
            return Err(InvalidRecord);
        }
        let listens = if listens == "-" { None } else { Some(listens.parse().map_err(|_| InvalidRecord)?) };
        self.verify(&key, &Claim::Node { point: key.as_bytes(), listens }, signature)?;
        Ok(NodeRecord { key, listens })
    }

    /// Reads a lease.
    pub(crate) fn verify_lease(&self, key: &PublicKey, value: &str) -> Result<Lease, InvalidRecord> {
        let [counter, ttl_ms, signature] = fields(value)?;
        let lease = Lease {
            counter: counter.parse().map_err(|_| InvalidRecord)?,
            ttl_ms: ttl_ms.parse().map_err(|_| InvalidRecord)?,
        };
        self.verify(key, &Claim::Lease(lease), signature)?;
        Ok(lease)
    }

    /// Reads the record of a service.
    pub(crate) fn verify_service(
        &self,
        key: &PublicKey,
        name: &ServiceName,
        value: &str,
    ) -> Result<ServiceRecord, InvalidRecord> {
        let [sequence, idempotent, signature] = fields(value)?;
        let idempotent = match idempotent {
            "i" => true,
            "-" => false,
            _ => return Err(InvalidRecord),
        };
        let record = ServiceRecord { sequence: sequence.parse().map_err(|_| InvalidRecord)?, idempotent };
        self.verify(key, &Claim::Service { name: name.as_str(), record }, signature)?;
        Ok(record)
    }

    fn sign(&self, identity: &Identity, claim: &Claim<'_>) -> Result<Signature, IdentityError> {
        identity.sign(&self.message(claim).map_err(|error| IdentityError::Crypto(error.to_string()))?)
    }

    fn verify(&self, key: &PublicKey, claim: &Claim<'_>, signature: &str) -> Result<(), InvalidRecord> {
        let signature = hex::decode(signature).map_err(|_| InvalidRecord)?;
        let signature = Signature::from_bytes(&signature).map_err(|_| InvalidRecord)?;
        key.verify(&self.message(claim).map_err(|_| InvalidRecord)?, &signature).map_err(|_| InvalidRecord)
    }

    fn message(&self, claim: &Claim<'_>) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(&("plimsoll record 1", self.realm, self.node.as_bytes(), self.generation, claim))
    }
}

/// The fields of a value of version 1.
fn fields(value: &str) -> Result<[&str; 3], InvalidRecord> {
    let mut fields = value.split(' ');
    match [fields.next(), fields.next(), fields.next(), fields.next(), fields.next()] {
        [Some("1"), Some(first), Some(second), Some(third), None] => Ok([first, second, third]),
        _ => Err(InvalidRecord),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    /// A record counts for its node, life, realm and name, and for no other.
    #[test]
    fn a_record_cannot_be_moved() -> TestResult {
        let (mine, other) = (Identity::generate()?, Identity::generate()?);
        let origin = Origin { realm: "default", node: mine.node_id(), generation: 7 };
        let (echo, time): (ServiceName, ServiceName) = ("echo".parse()?, "time".parse()?);
        let record = ServiceRecord { sequence: 3, idempotent: true };
        let value = origin.sign_service(&mine, &echo, record)?;
        let key = origin.verify_node(&origin.sign_node(&mine, Some("127.0.0.1:4433".parse()?))?)?.key;

        assert_eq!(origin.verify_service(&key, &echo, &value), Ok(record));
        assert_eq!(origin.verify_service(&key, &time, &value), Err(InvalidRecord));
        assert_eq!(origin.verify_service(&key, &echo, &value.replace(" i ", " - ")), Err(InvalidRecord));
        assert_eq!(origin.verify_service(&key, &echo, &value.replace("1 3 ", "1 4 ")), Err(InvalidRecord));
        for moved in [
            Origin { realm: "other", ..origin },
            Origin { generation: 8, ..origin },
            Origin { node: other.node_id(), ..origin },
        ] {
            assert_eq!(moved.verify_service(&key, &echo, &value), Err(InvalidRecord));
        }
        let forged = origin.sign_service(&other, &echo, record)?;
        assert_eq!(origin.verify_service(&key, &echo, &forged), Err(InvalidRecord));
        Ok(())
    }

    #[test]
    fn a_node_record_needs_the_key_that_makes_the_id() -> TestResult {
        let (mine, other) = (Identity::generate()?, Identity::generate()?);
        let origin = Origin { realm: "default", node: mine.node_id(), generation: 7 };
        assert_eq!(origin.verify_node(&origin.sign_node(&mine, None)?)?.listens, None);
        assert_eq!(origin.verify_node(&origin.sign_node(&other, None)?), Err(InvalidRecord));
        let lease = Lease { counter: 1, ttl_ms: 300_000 };
        let value = origin.sign_lease(&mine, lease)?;
        assert_eq!(origin.verify_lease(&mine.public_key(), &value), Ok(lease));
        assert_eq!(origin.verify_lease(&mine.public_key(), &value.replace("300000", "300001")), Err(InvalidRecord));
        for junk in ["", "1", "2 1 2 3", "1 a b c", "1 1 1 zz", "1 1 1 00 00"] {
            assert_eq!(origin.verify_lease(&mine.public_key(), junk), Err(InvalidRecord));
            assert_eq!(origin.verify_node(junk), Err(InvalidRecord));
        }
        Ok(())
    }

    /// Issue 10, 7.5: each field of each kind of record, changed, is refused; so is each field of the origin.
    #[test]
    fn no_field_of_a_signed_record_can_be_changed() -> TestResult {
        let mine = Identity::generate()?;
        let origin = Origin { realm: "default", node: mine.node_id(), generation: 7 };
        let name: ServiceName = "echo".parse()?;
        let key = mine.public_key();
        let node = origin.sign_node(&mine, Some("127.0.0.1:4433".parse()?))?;
        let lease = origin.sign_lease(&mine, Lease { counter: 5, ttl_ms: 300_000 })?;
        let service = origin.sign_service(&mine, &name, ServiceRecord { sequence: 3, idempotent: true })?;
        let holds = |origin: &Origin<'_>, kind: usize, value: &str| match kind {
            0 => origin.verify_node(value).is_ok(),
            1 => origin.verify_lease(&key, value).is_ok(),
            _ => origin.verify_service(&key, &name, value).is_ok(),
        };
        // Other values that each field may have. The last one is the signature.
        let others: [[&[&str]; 3]; 3] = [
            [&["04"], &["-", "127.0.0.1:4434", "127.0.0.2:4433", "[::1]:4433"], &["00"]],
            [&["4", "6", "18446744073709551615"], &["0", "299999", "300001", "4294967295"], &["00"]],
            [&["2", "4", "0"], &["-"], &["00"]],
        ];
        for (kind, value) in [&node, &lease, &service].into_iter().enumerate() {
            assert!(holds(&origin, kind, value), "{value}");
            let fields: Vec<&str> = value.split(' ').collect();
            assert_eq!(fields.len(), 4);
            for (field, others) in others[kind].iter().enumerate() {
                for other in *others {
                    let mut changed = fields.clone();
                    changed[field + 1] = other;
                    assert!(!holds(&origin, kind, &changed.join(" ")), "kind {kind}, field {field}: {other}");
                }
            }
            for version in ["0", "2", "01"] {
                let changed = format!("{version}{}", &value[1..]);
                assert!(!holds(&origin, kind, &changed), "{changed}");
            }
            // Every digit of key and signature counts.
            for (at, digit) in value.char_indices().filter(|(_, digit)| digit.is_ascii_hexdigit()) {
                let mut changed = value.clone();
                changed.replace_range(at..=at, if digit == '0' { "1" } else { "0" });
                assert!(!holds(&origin, kind, &changed), "kind {kind}, character {at}");
            }
            for moved in [
                Origin { realm: "other", ..origin },
                Origin { generation: 6, ..origin },
                Origin { generation: 8, ..origin },
                Origin { node: NodeId::from_digest([0; 32]), ..origin },
            ] {
                assert!(!holds(&moved, kind, value), "kind {kind}, {moved:?}");
            }
        }
        assert!(origin.verify_service(&key, &"echo2".parse()?, &service).is_err(), "another name");
        assert!(origin.verify_lease(&key, &service).is_err() && origin.verify_service(&key, &name, &lease).is_err());
        Ok(())
    }
}
