//! The settings file.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::form::{path, text};
use super::gate::{GateSetting, ReceiptSetting};
use super::setup::{InstallerSetting, NetworkSetting, PollSetting, Program, TrialSetting};
use tidegate_client::policy::Policy;
use tidegate_tuf::fields::{FieldError, whole};

/// The content of a settings file, or the same settings given as options; all of them may be absent.
#[derive(Debug, Default)]
pub(super) struct SettingsFile {
    pub(super) root: Option<PathBuf>,
    pub(super) repository: Option<String>,
    pub(super) metadata_url: Option<String>,
    pub(super) targets_url: Option<String>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) device_id: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) product: Option<String>,
    pub(super) hardware: Option<String>,
    pub(super) factory_version: Option<String>,
    pub(super) factory_sequence: Option<u64>,
    pub(super) facts: Option<Json>,
    pub(super) slot: Option<PathBuf>,
    // The following settings have no options.
    pub(super) installer: Option<InstallerSetting>,
    pub(super) trial: Option<TrialSetting>,
    pub(super) policy: Option<Policy>,
    pub(super) poll: Option<PollSetting>,
    pub(super) network: Option<NetworkSetting>,
    pub(super) reserve: Option<u64>,
    pub(super) keep_fallback: bool,
    pub(super) system_facts: bool,
    pub(super) facts_file: Option<PathBuf>,
    pub(super) facts_program: Option<Program>,
    pub(super) receipts: Option<ReceiptSetting>,
    pub(super) gate: Option<GateSetting>,
    /// What is empty or zero in the file.
    pub(super) void: Vec<String>,
    /// What was left out, since it cannot be read.
    pub(super) unread: Vec<String>,
}

impl SettingsFile {
    /// Reads a settings file's content.
    pub(super) fn read(value: &Json) -> Result<Self, FieldError> {
        whole(value, "", |fields| {
            Ok(Self {
                root: path(fields, "root")?,
                repository: text(fields, "repository")?,
                metadata_url: text(fields, "metadata_url")?,
                targets_url: text(fields, "targets_url")?,
                state_dir: path(fields, "state_dir")?,
                device_id: text(fields, "device_id")?,
                channel: text(fields, "channel")?,
                product: text(fields, "product")?,
                hardware: text(fields, "hardware")?,
                factory_version: text(fields, "factory_version")?,
                factory_sequence: fields.optional_u64("factory_sequence")?,
                facts: fields.optional("facts").cloned(),
                slot: path(fields, "slot")?,
                installer: fields.optional_part("installer", InstallerSetting::read)?,
                trial: fields.optional_part("trial", TrialSetting::read)?,
                policy: fields.optional_part("policy", Policy::read)?,
                poll: fields.optional_part("poll", PollSetting::read)?,
                network: fields.optional_part("network", NetworkSetting::read)?,
                reserve: fields.optional_u64("reserve")?,
                keep_fallback: fields.bool_or("keep_fallback", false)?,
                system_facts: fields.bool_or("system_facts", false)?,
                facts_file: path(fields, "facts_file")?,
                facts_program: fields.optional_part("facts_program", Program::read)?,
                receipts: fields.optional_part("receipts", ReceiptSetting::read)?,
                gate: fields.optional_part("gate", GateSetting::read)?,
                void: Vec::new(),
                unread: Vec::new(),
            })
        })
    }
}
