use chitchat::{ChitchatMessage, Deserializable as _};
use proptest::prelude::*;

use super::*;
use crate::directory::test_messages::MessageBuilder;

fn node(n: u8) -> NodeId {
    NodeId::from_digest([n; 32])
}

fn refused(message: &[u8]) -> String {
    match check(message, &EngineSummary::default()) {
        Err(Rejected::Poison(why)) => why,
        other => panic!("taken or only dropped: {other:?}"),
    }
}

fn engine_reads(message: &[u8]) -> bool {
    ChitchatMessage::deserialize(&mut &message[..]).is_ok()
}

#[test]
fn what_the_engine_writes_is_taken() {
    let ack = MessageBuilder::default().node(2).key("n", "1", 1).key("s/echo", "1", 2).node(3).key("l", "1", 7).ack();
    let compressed = MessageBuilder::zstd(&MessageBuilder::default().node(2).key("n", "1", 1).0, 1);
    let digest = MessageBuilder::header(0).bytes(&2u16.to_le_bytes()).life(1, 5).u64(3).u64(0).u64(9);
    let syn = digest.life(2, 6).u64(1).u64(0).u64(2).text("plimsoll/1/default").0;
    let bad_cluster = MessageBuilder::header(3).0;
    for message in [ack, compressed, syn, bad_cluster] {
        assert!(engine_reads(&message));
        assert_eq!(check(&message, &EngineSummary::default()), Ok(None));
    }
}

#[test]
fn how_much_its_sender_knows_of_this_node_is_read_on_the_way() {
    let known = EngineSummary { me: Some((node(1), 5)), lives: HashMap::new() };
    let syn = |generation| {
        let digest = MessageBuilder::header(0).bytes(&2u16.to_le_bytes()).life(2, 6).u64(1).u64(0).u64(2);
        digest.life(1, generation).u64(3).u64(0).u64(9).text("plimsoll/1/default").0
    };
    assert_eq!(check(&syn(5), &known), Ok(Some(9)));
    assert_eq!(check(&syn(4), &known), Ok(None), "of an earlier life");
}

/// the set of a digest's nodes is made at its announced size, and an announcement that the message is too short for
/// makes none.
#[test]
fn room_is_made_for_what_is_announced_and_can_be_there() {
    let honest = (0..200).fold(MessageBuilder::header(0).bytes(&200_u16.to_le_bytes()), |out, n| {
        out.life(n as u8, 5).u64(3).u64(0).u64(9)
    });
    let entries = &honest.0[MessageBuilder::header(0).0.len() + 2..];
    assert_eq!(room(200, entries.len()), 200, "an entry is never smaller than it is taken for");
    assert!(room(u16::MAX, entries.len()) <= entries.len() / 100);
    assert_eq!(room(u16::MAX, 50), 0);

    let read = |message: &[u8]| {
        let mut lives = HashMap::new();
        let outcome = digest(&mut Input(message), &mut lives);
        (outcome.is_ok(), lives.capacity())
    };
    let body = &honest.0[MessageBuilder::header(0).0.len()..];
    let (taken, capacity) = read(body);
    assert!(taken && capacity >= 200, "{capacity}");
    let lying = [&u16::MAX.to_le_bytes()[..], &entries[..entries.len() / 100]].concat();
    let (taken, capacity) = read(&lying);
    assert!(!taken && capacity < 16, "{capacity}");
}

/// Each of these the engine would take, to its own or its node's harm.
#[test]
fn poison_is_refused_before_the_engine_sees_it() {
    let multibyte = MessageBuilder::default().node(2).key("é", "1", 1).ack();
    assert!(engine_reads(&multibyte), "the engine takes it, and panics later");
    assert!(refused(&multibyte).contains("ASCII"));

    let oversize = MessageBuilder::default().node(2).key("k", &"v".repeat(MAX_VALUE + 1), 1).ack();
    assert!(engine_reads(&oversize));
    assert!(refused(&oversize).contains("too long"));

    let falling = MessageBuilder::default().node(2).key("k", "1", 5).bytes(&[2]).u64(3).ack();
    assert!(engine_reads(&falling));
    assert!(refused(&falling).contains("versions do not rise"));

    let unreasonable = MessageBuilder::default().node(2).key("k", "1", u64::MAX).ack();
    assert!(engine_reads(&unreasonable));
    assert!(refused(&unreasonable).contains("versions"));

    let entries = MessageBuilder::default().bytes(&[0]).id(&node(2).to_string(), 1, address_of(&node(3))).u64(0).u64(0);
    let claimed = entries.key("k", "1", 1).ack();
    assert!(engine_reads(&claimed));
    assert!(refused(&claimed).contains("address"));

    let nobody = MessageBuilder::default().bytes(&[0]).id("nobody", 1, address_of(&node(3))).u64(0).u64(0).ack();
    assert!(engine_reads(&nobody));
    assert!(refused(&nobody).contains("node id"));
}

/// 64 KB of message that would swell to 180 MB.
#[test]
fn a_compression_bomb_is_refused_after_a_bounded_part() {
    let bomb = MessageBuilder::zstd(&[0; BLOCK], 2_500);
    assert!(bomb.len() < 80 * 1024, "{}", bomb.len());
    assert!(refused(&bomb).contains("too many blocks"));
}

#[test]
fn what_others_say_about_this_node_is_dropped_without_blame() {
    let known = EngineSummary { me: Some((node(1), 1)), lives: HashMap::new() };
    let message = MessageBuilder::default().node(1).key("s/echo", "1", 99).ack();
    assert_eq!(check(&message, &known), Err(Rejected::Dropped("about this node itself")));
}

#[test]
fn nodes_and_keys_have_caps() {
    let lives = (0..MAX_LIVES as u64).map(|generation| ((node(9), generation), 0)).collect();
    let known = EngineSummary { me: None, lives };
    let entry =
        |generation| MessageBuilder::header(0).bytes(&1u16.to_le_bytes()).life(9, generation).u64(1).u64(0).u64(1);
    let syn = |generation| entry(generation).text("c").0;
    assert_eq!(check(&syn(5), &known), Ok(None), "one that is known needs no room");
    assert_eq!(check(&syn(MAX_LIVES as u64), &known), Err(Rejected::Dropped("too many nodes")));

    let known = EngineSummary { me: None, lives: [((node(2), 1), 2 * MAX_KEYS)].into() };
    let message = MessageBuilder::default().node(2).key("k", "1", 1).ack();
    assert_eq!(check(&message, &known), Err(Rejected::Dropped("too many keys of one node")));
}

proptest! {
    /// Whatever arrives, the guard neither panics nor takes what the engine cannot read.
    #[test]
    fn junk_never_panics_and_is_never_taken(
        kind in 0u8..5, body in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..300, flip in 0usize..300,
    ) {
        let junk = MessageBuilder::header(kind).bytes(&body).0;
        let mut damaged = MessageBuilder::default().node(2).key("n", "1", 1).key("s/echo", "12", 2).ack();
        let at = flip % damaged.len();
        damaged[at] ^= 0x55;
        damaged.truncate(cut.max(1));
        for message in [junk, damaged] {
            if check(&message, &EngineSummary::default()).is_ok() {
                prop_assert!(engine_reads(&message));
            }
        }
    }
}
