//! In place of the feature `gate`: its settings are refused.

use serde_json::Value;

use super::setup::Surroundings;
use tidegate_client::Error;
use tidegate_client::device::DeviceBuilder;
use tidegate_tuf::fields::FieldError;

/// There is none: reading one is refused.
#[derive(Debug, Clone, Copy)]
pub(super) enum GateSetting {}

/// There is none: reading one is refused.
pub(super) type ReceiptSetting = GateSetting;

impl GateSetting {
    pub(super) fn read(_: &Value, at: &str) -> Result<Self, FieldError> {
        Err(FieldError::new(at, "this program was built without the feature \"gate\", which this needs"))
    }
}

/// There is none.
pub(super) type ReceiptSink = GateSetting;

/// Changes nothing.
pub(super) fn connect(
    builder: DeviceBuilder,
    gate: Option<&GateSetting>,
    receipts: Option<&ReceiptSetting>,
    Surroundings { folder: _folder, state: _state, http: _http, client_key: _key }: Surroundings<'_>,
    _: &mut Vec<String>,
) -> (DeviceBuilder, Result<Option<ReceiptSink>, Error>) {
    match (gate, receipts) {
        (None, None) => (builder, Ok(None)),
        (Some(never), _) | (_, Some(never)) => match *never {},
    }
}

/// `tidegate-device receipts` is refused, and there are no receipts to be sent.
pub(super) mod receipts {
    use super::ReceiptSink;
    use crate::failure::Failure;
    use crate::output::Output;
    use tidegate_client::device::{Device, DeviceBuilder};
    use tidegate_client::receipts::Sent;

    pub(crate) fn show(_: DeviceBuilder, _: Output) -> Result<bool, Failure> {
        Err(Failure::Usage("receipts: this program was built without the feature \"gate\", which this needs".into()))
    }

    pub(crate) fn send_now(builder: DeviceBuilder, _: Option<ReceiptSink>, output: Output) -> Result<bool, Failure> {
        show(builder, output)
    }

    pub(crate) fn send(_: &mut Device, sink: ReceiptSink, _: Output) {
        match sink {}
    }

    pub(crate) fn send_in_service(_: &mut Device, sink: ReceiptSink) -> (Option<(String, Sent)>, Vec<String>) {
        match sink {}
    }
}
