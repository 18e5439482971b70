//! A fleet, device by device: from a CSV file, or made up.
//!
//! The CSV file is read as a stream, a line at a time, so that its length does not matter. Its first line names the columns:
//!
//! | column | what it holds | may be absent |
//! |---|---|---|
//! | `id` | the device's id | no |
//! | `hardware` | its hardware id | no |
//! | `version` | the version it runs | no |
//! | `sequence` | the sequence of that release; 0 or nothing for the factory image | yes: 0 |
//! | `product` | the product it runs | yes: the one that is asked about |
//! | `channel` | the channel it follows | yes: the one that is asked about |
//! | any other | the fact of that name, read as `--fact NAME=VALUE` is; nothing if the device does not have it | yes |
//!
//! Values may stand between double quotes, in which a double quote is written twice; a value holds no line break. A device that stands
//! in two lines counts twice.
//!
//! Most devices of a fleet differ in nothing but their ids. They share a [`Class`], of which a decision needs to be made
//! but once.

mod csv;
mod synthetic;

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use tidegate_model::decision::Profile;
use tidegate_model::facts::Facts;
use tidegate_model::name::{DeviceId, FactName, Name};

use crate::error::Result;

pub use synthetic::Synthetic;

/// A device of a fleet.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its id.
    pub id: DeviceId,
    /// What else there is to it.
    pub class: Rc<Class>,
}

/// Devices that differ in nothing but their ids.
#[derive(Debug)]
pub struct Class {
    /// Different for every class of a fleet.
    pub number: u64,
    /// One of them.
    pub profile: Profile,
    /// The facts that conditions see; see [`Profile::facts`].
    pub facts: Facts,
}

/// What a fleet leaves unsaid, and what is asked of it.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The product of devices that do not name theirs.
    pub product: Option<Name>,
    /// The channel of devices that do not name theirs.
    pub channel: Option<Name>,
    /// The facts that some condition looks at. Others are not kept. `None` keeps all.
    pub facts: Option<BTreeSet<FactName>>,
}

/// A fleet that is read from its beginning to its end.
#[derive(Debug)]
pub struct Fleet(Source);

#[derive(Debug)]
enum Source {
    Csv(Box<csv::Reader>),
    Synthetic(Box<synthetic::Devices>),
}

impl Fleet {
    /// Reads a CSV file, or standard input if the path is `-`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be opened, or if its first line lacks a required column.
    pub fn csv(path: &Path, scope: Scope) -> Result<Self> {
        Ok(Self(Source::Csv(Box::new(csv::Reader::open(path, scope)?))))
    }

    /// Generates synthetic devices.
    ///
    /// # Errors
    ///
    /// Fails if there is no hardware for them.
    pub fn synthetic(synthetic: Synthetic) -> Result<Self> {
        Ok(Self(Source::Synthetic(Box::new(synthetic::Devices::new(synthetic)?))))
    }

    /// How far [`done`](Self::done) will go: bytes or devices; 0 if that is not known.
    pub fn length(&self) -> u64 {
        match &self.0 {
            Source::Csv(reader) => reader.length(),
            Source::Synthetic(devices) => devices.length(),
        }
    }

    /// How far it was read.
    pub fn done(&self) -> u64 {
        match &self.0 {
            Source::Csv(reader) => reader.done(),
            Source::Synthetic(devices) => devices.done(),
        }
    }
}

impl Iterator for Fleet {
    type Item = Result<Member>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Csv(reader) => reader.next().transpose(),
            Source::Synthetic(devices) => devices.next().transpose(),
        }
    }
}
