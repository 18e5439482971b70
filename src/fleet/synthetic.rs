//! Devices that are made up.

use std::collections::BTreeSet;
use std::rc::Rc;

use tidegate_model::decision::{Installed, Profile};
use tidegate_model::facts::Facts;
use tidegate_model::name::{DeviceId, HardwareId, Name};

use super::{Class, Member};
use crate::error::{Error, Result};

/// What made-up devices are like: `device-0000001` and so on, with these kinds of hardware in turn.
#[derive(Debug, Clone)]
pub struct Synthetic {
    /// How many.
    pub devices: u64,
    /// Their product.
    pub product: Name,
    /// Their channel.
    pub channel: Name,
    /// Their kinds of hardware.
    pub hardware: BTreeSet<HardwareId>,
    /// What all of them run.
    pub installed: Installed,
    /// What all of them say about themselves.
    pub facts: Facts,
}

#[derive(Debug)]
pub(super) struct Devices {
    count: u64,
    done: u64,
    classes: Vec<Rc<Class>>,
}

impl Devices {
    pub(super) fn new(synthetic: Synthetic) -> Result<Self> {
        let Synthetic { devices, product, channel, hardware, installed, facts } = synthetic;
        let class = |(number, hardware)| {
            let profile = Profile {
                id: id(number + 1)?,
                product: product.clone(),
                channel: channel.clone(),
                hardware,
                installed: installed.clone(),
                own_facts: facts.clone(),
                attestation: None,
            };
            let profile = profile.assumed().map_err(Error::input)?;
            let facts = profile.facts();
            Ok(Rc::new(Class { number, profile, facts }))
        };
        let classes = (0..).zip(hardware).map(class).collect::<Result<Vec<_>>>()?;
        if classes.is_empty() && devices > 0 {
            return Err(Error::input("devices cannot be simulated without hardware")
                .remedy("give --hardware ID, or add an artifact to the release first"));
        }
        Ok(Self { count: devices, done: 0, classes })
    }

    pub(super) fn length(&self) -> u64 {
        self.count
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        if self.done == self.count {
            return Ok(None);
        }
        let class = usize::try_from(self.done).unwrap_or(0).checked_rem(self.classes.len()).unwrap_or(0);
        let Some(class) = self.classes.get(class) else { return Ok(None) };
        self.done += 1;
        Ok(Some(Member { id: id(self.done)?, class: Rc::clone(class) }))
    }
}

fn id(number: u64) -> Result<DeviceId> {
    format!("device-{number:07}").parse().map_err(|e| Error::bug("the id of a made-up device").with_source(e))
}
