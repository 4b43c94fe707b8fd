//! Reads a gossip message before the gossip engine does, and refuses what would harm it.
//!
//! The engine (chitchat 0.11) trusts its messages: a key whose first character is multi-byte panics its task, a value
//! over 65 KB silently blocks every later key of its node, blocks of compressed zeros swell a thousandfold, versions that
//! go back trip its assertions, and entries about nodes that do not exist stay for as long as dead nodes do. So each
//! message is parsed here first, within limits, and never reaches the engine unless all of it is harmless.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::names::NodeId;

use super::address::address_of;

#[cfg(test)]
mod tests;

/// The longest value. The engine's own limit is higher, but silent.
pub(crate) const MAX_VALUE: usize = 16 * 1024;
/// The longest key.
pub(crate) const MAX_KEY: usize = 256;
/// Keys of one node, deleted ones included until they are forgotten.
pub(crate) const MAX_KEYS: usize = 4_096;
/// The most incarnations of nodes known at once.
pub(crate) const MAX_LIVES: usize = 10_000;
/// Compressed blocks in a message; each swells to 64 KiB at most. The engine fills blocks of 16 KiB.
const MAX_BLOCKS: usize = 64;
const BLOCK: usize = u16::MAX as usize;
const MAGIC: u16 = 45_139;
/// A node in a digest: its id as text with its length, four numbers of 64 bits, an address.
const SMALLEST_DIGEST: usize = 2 + 64 + 4 * 8 + 7;
/// No honest node reaches versions beyond this: setting a key a million times a second takes three centuries.
const MAX_VERSION: u64 = 1 << 53;

/// One incarnation of a node, as the engine distinguishes them.
pub(crate) type Incarnation = (NodeId, u64);

/// What is known of the engine's state, from the last check of it.
#[derive(Debug, Default)]
pub(crate) struct EngineSummary {
    /// The incarnation of this node: records about it from others are not taken.
    pub(crate) me: Option<Incarnation>,
    /// Incarnations in the engine, with their number of keys.
    pub(crate) lives: HashMap<Incarnation, usize>,
}

/// Why a message is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// No honest node sends this.
    Poison(String),
    /// Taken it would break a limit here, which need not be the sender's doing.
    Dropped(&'static str),
}

/// Checks a whole message. Returns the version of this node's own records that its sender has, if the digest names one.
pub(crate) fn check(message: &[u8], known: &EngineSummary) -> Result<Option<u64>, Rejected> {
    let mut input = Input(message);
    if input.u16()? != MAGIC || input.u8()? != 0 {
        return Err(poison("it is not of the gossip protocol's version 0"));
    }
    let mut lives = HashMap::new();
    match input.u8()? {
        0 => {
            digest(&mut input, &mut lives)?;
            input.text(MAX_KEY)?;
        }
        1 => {
            digest(&mut input, &mut lives)?;
            delta(&mut input, known)?;
        }
        2 => delta(&mut input, known)?,
        3 => {}
        _ => return Err(poison("it is of an unknown kind")),
    }
    if !input.0.is_empty() {
        return Err(poison("bytes follow it"));
    }
    let unknown = lives.keys().filter(|life| !known.lives.contains_key(*life)).count();
    if known.lives.len() + unknown > MAX_LIVES {
        return Err(Rejected::Dropped("too many nodes"));
    }
    Ok(known.me.and_then(|me| lives.get(&me).copied()))
}

/// Reads the incarnations that the sender knows, each with its version.
fn digest(input: &mut Input<'_>, lives: &mut HashMap<Incarnation, u64>) -> Result<(), Rejected> {
    let nodes = input.u16()?;
    lives.reserve(room(nodes, input.0.len()));
    for _ in 0..nodes {
        let life = life(input)?;
        let (_heartbeat, collected, version) = (input.u64()?, input.u64()?, input.u64()?);
        if collected.max(version) > MAX_VERSION {
            return Err(poison("a version is beyond all reason"));
        }
        lives.insert(life, version);
    }
    Ok(())
}

/// How many nodes to make room for: as many as are announced, but no more than the bytes that came can name.
fn room(announced: u16, bytes: usize) -> usize {
    usize::from(announced).min(bytes / SMALLEST_DIGEST)
}

/// An id, whose address follows from its node: so none can be claimed for another.
fn life(input: &mut Input<'_>) -> Result<Incarnation, Rejected> {
    let node: NodeId = input.text(64)?.parse().map_err(|_| poison("a node id is not one"))?;
    let generation = input.u64()?;
    if input.address()? != address_of(&node) {
        return Err(poison("an address is not its node's"));
    }
    Ok((node, generation))
}

fn delta(input: &mut Input<'_>, known: &EngineSummary) -> Result<(), Rejected> {
    let blocks = inflate(input)?;
    let mut input = Input(&blocks);
    let mut seen = HashSet::new();
    let mut node: Option<Delta> = None;
    while !input.0.is_empty() {
        match input.u8()? {
            0 => {
                let life = life(&mut input)?;
                let (collected, from) = (input.u64()?, input.u64()?);
                if !seen.insert(life) {
                    return Err(poison("a node is in it twice"));
                }
                if collected.max(from) > MAX_VERSION {
                    return Err(poison("a version is beyond all reason"));
                }
                if known.me == Some(life) {
                    return Err(Rejected::Dropped("about this node itself"));
                }
                let keys = known.lives.get(&life).copied().unwrap_or_default();
                node = Some(Delta { version: 0, keys });
            }
            1 => {
                let delta = node.as_mut().ok_or_else(|| poison("a key belongs to no node"))?;
                key_value(&mut input, delta)?;
            }
            2 => {
                let delta = node.as_mut().ok_or_else(|| poison("a version belongs to no node"))?;
                delta.advance(input.u64()?)?;
            }
            _ => return Err(poison("an entry is of an unknown kind")),
        }
    }
    Ok(())
}

/// What is being read about one node.
struct Delta {
    version: u64,
    keys: usize,
}

impl Delta {
    fn advance(&mut self, version: u64) -> Result<(), Rejected> {
        if version <= self.version || version > MAX_VERSION {
            return Err(poison("versions do not rise"));
        }
        self.version = version;
        Ok(())
    }
}

fn key_value(input: &mut Input<'_>, delta: &mut Delta) -> Result<(), Rejected> {
    let key = input.text(MAX_KEY)?;
    if !key.starts_with(|first: char| first.is_ascii_graphic()) {
        return Err(poison("a key does not begin with a visible ASCII character"));
    }
    input.text(MAX_VALUE)?;
    delta.advance(input.u64()?)?;
    if input.u8()? > 2 {
        return Err(poison("a key has an unknown status"));
    }
    delta.keys += 1;
    // Keys that are only set anew are counted as well, so this is lenient by the size of one message.
    if delta.keys > 2 * MAX_KEYS { Err(Rejected::Dropped("too many keys of one node")) } else { Ok(()) }
}

fn inflate(input: &mut Input<'_>) -> Result<Vec<u8>, Rejected> {
    let mut inflated = Vec::new();
    let mut room = Vec::new();
    for _ in 0..=MAX_BLOCKS {
        match input.u8()? {
            0 => return Ok(inflated),
            1 => {
                let length = input.u16()?.into();
                let block = input.take(length)?;
                room.resize(BLOCK, 0);
                let size = zstd::bulk::decompress_to_buffer(block, &mut room[..])
                    .map_err(|_| poison("a block cannot be inflated"))?;
                inflated.extend_from_slice(&room[..size]);
            }
            2 => {
                let length = input.u16()?.into();
                inflated.extend_from_slice(input.take(length)?);
            }
            _ => return Err(poison("a block is of an unknown kind")),
        }
    }
    Err(poison("it has too many blocks"))
}

fn poison(what: &str) -> Rejected {
    Rejected::Poison(what.to_owned())
}

/// What is left of a message. Numbers are little-endian, texts have a length of two bytes.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Rejected> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| poison("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Rejected> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| poison("it ends early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Rejected> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Rejected> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Rejected> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self, longest: usize) -> Result<&'a str, Rejected> {
        let length = usize::from(self.u16()?);
        if length > longest {
            return Err(poison("a text is too long"));
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| poison("a text is not UTF-8"))
    }

    fn address(&mut self) -> Result<SocketAddr, Rejected> {
        let ip = match self.u8()? {
            4 => IpAddr::from(self.array::<4>()?),
            6 => IpAddr::from(self.array::<16>()?),
            _ => return Err(poison("an address is of an unknown family")),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }
}
