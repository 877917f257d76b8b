//! The keys of all records: one tree, one byte in front that says the kind.
//!
//! | kind | key after the kind byte | value |
//! |---|---|---|
//! | `0x01` format | — | the format, and how far a migration has come |
//! | `0x02` meta | — | last journal number, first one kept, instance, how many pages, map rows and starts |
//! | `0x03` map | table, campaign, index of the map row | one bit for each of 2,048 pages: is it stored? |
//! | `0x04` page | table, campaign, page | the rows of one page |
//! | `0x05` journal | number | changes, in order |
//! | `0x06` text | campaign, index of the first key | keys of consecutive tasks |
//!
//! Numbers in keys are big-endian, so that the order of bytes is the order of numbers. `campaign` is 0 in tables that
//! are not cut by campaign. **Invariant.** A kind's byte is never used for anything else, in any format.
//! Tested in this file.

use crate::types::{CampaignId, TaskIndex};

/// What a record is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The format of everything else; its own layout never changes.
    Format = 0x01,
    /// What every commit rewrites.
    Meta = 0x02,
    /// Which pages are stored.
    Map = 0x03,
    /// Rows.
    Page = 0x04,
    /// Changes.
    Journal = 0x05,
    /// Keys of tasks.
    Text = 0x06,
}

/// Every kind, in order of the keys.
pub(super) const KINDS: [Kind; 6] = [Kind::Format, Kind::Meta, Kind::Map, Kind::Page, Kind::Journal, Kind::Text];

impl Kind {
    /// The kind of a key.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        let first = key.first()?;
        KINDS.into_iter().find(|kind| *kind as u8 == *first)
    }

    /// The name of a key's kind, for error texts.
    pub(super) fn name(key: &[u8]) -> &'static str {
        match Self::of(key) {
            Some(Self::Format) => "format",
            Some(Self::Meta) => "meta",
            Some(Self::Map) => "map",
            Some(Self::Page) => "page",
            Some(Self::Journal) => "journal",
            Some(Self::Text) => "text",
            None => "unknown",
        }
    }

    /// The bounds of this kind's keys, for a scan: from, below.
    pub(super) fn bounds(self) -> ([u8; 1], [u8; 1]) {
        ([self as u8], [self as u8 + 1])
    }
}

/// A table of rows.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    /// One row.
    Globals = 1,
    /// By campaign id.
    Campaigns = 2,
    /// By campaign and task; the only table cut by campaign.
    Tasks = 3,
    /// By slot.
    Leases = 4,
    /// By slot.
    Sessions = 5,
    /// By slot.
    SessionNames = 6,
    /// By slot.
    Troubles = 7,
    /// By slot.
    Returned = 8,
}

/// Every table, in order of the keys: a campaign comes before its tasks, a session before its name.
pub(super) const TABLES: [Table; 8] = [
    Table::Globals,
    Table::Campaigns,
    Table::Tasks,
    Table::Leases,
    Table::Sessions,
    Table::SessionNames,
    Table::Troubles,
    Table::Returned,
];

/// Names a page, or (with the index of a map row as `number`) a row of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// Which table.
    pub(super) table: Table,
    /// Which campaign; 0 in tables that are not cut by campaign.
    pub(super) campaign: u32,
    /// Which page of it, from 0.
    pub(super) number: u32,
}

/// Bytes of the key of a page or a map row.
const PLACE_KEY_BYTES: usize = 10;

/// The key of the format record.
pub(super) fn format() -> Vec<u8> {
    vec![Kind::Format as u8]
}

/// The key of the meta record.
pub(super) fn meta() -> Vec<u8> {
    vec![Kind::Meta as u8]
}

/// The key of a row of the map.
pub(super) fn map(place: Place) -> Vec<u8> {
    place_key(Kind::Map, place)
}

/// The key of a page.
pub(super) fn page(place: Place) -> Vec<u8> {
    place_key(Kind::Page, place)
}

/// The key of a journal record.
pub(super) fn journal(number: u64) -> Vec<u8> {
    let mut key = vec![Kind::Journal as u8];
    key.extend(number.to_be_bytes());
    key
}

/// The key of a text block.
pub(super) fn text(campaign: CampaignId, first: TaskIndex) -> Vec<u8> {
    let mut key = vec![Kind::Text as u8];
    key.extend(campaign.0.to_be_bytes());
    key.extend(first.0.to_be_bytes());
    key
}

/// The place a key of a page or map row names.
pub(super) fn parse_place(key: &[u8]) -> Option<Place> {
    if key.len() != PLACE_KEY_BYTES {
        return None;
    }
    let table = TABLES.into_iter().find(|table| *table as u8 == key[1])?;
    Some(Place { table, campaign: parse_u32(&key[2..6])?, number: parse_u32(&key[6..10])? })
}

/// The number in the key of a journal record.
pub(super) fn parse_journal(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

/// The campaign and first index in the key of a text block.
pub(super) fn parse_text(key: &[u8]) -> Option<(CampaignId, TaskIndex)> {
    if key.len() != 9 {
        return None;
    }
    Some((CampaignId(parse_u32(&key[1..5])?), TaskIndex(parse_u32(&key[5..9])?)))
}

fn place_key(kind: Kind, place: Place) -> Vec<u8> {
    let mut key = Vec::with_capacity(PLACE_KEY_BYTES);
    key.extend([kind as u8, place.table as u8]);
    key.extend(place.campaign.to_be_bytes());
    key.extend(place.number.to_be_bytes());
    key
}

fn parse_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_bytes() {
        let place = Place { table: Table::Tasks, campaign: 0x0102, number: 0x0304_0506 };
        assert_eq!(format(), [1]);
        assert_eq!(meta(), [2]);
        assert_eq!(map(place), [3, 3, 0, 0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(page(place), [4, 3, 0, 0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(journal(0x0102), [5, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(text(CampaignId(1), TaskIndex(256)), [6, 0, 0, 0, 1, 0, 0, 1, 0]);
        let numbers: Vec<u8> = TABLES.into_iter().map(|table| table as u8).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn keys_can_be_read_back_and_nothing_else_can() {
        let place = Place { table: Table::Returned, campaign: 7, number: u32::MAX };
        assert_eq!(parse_place(&page(place)), Some(place));
        assert_eq!(parse_place(&page(place)[..9]), None);
        assert_eq!(parse_place(&[4, 9, 0, 0, 0, 0, 0, 0, 0, 0]), None, "there is no table 9");
        assert_eq!(parse_journal(&journal(u64::MAX)), Some(u64::MAX));
        assert_eq!(parse_journal(&[5]), None);
        assert_eq!(parse_text(&text(CampaignId(9), TaskIndex(8))), Some((CampaignId(9), TaskIndex(8))));
        assert_eq!(parse_text(&[6, 0, 0]), None);
        assert_eq!(Kind::of(&[]), None);
        assert_eq!(Kind::of(&[7]), None);
    }
}
