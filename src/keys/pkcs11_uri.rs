//! PKCS#11 URIs (RFC 7512): which module, which token, which object.

use std::fmt;
use std::path::PathBuf;

use tidegate_model::text::public_url;

use super::percent::{encode, percent_decode, percent_decode_bytes};
use crate::error::{Error, Result};

/// A PKCS#11 URI that names a private key. Parsing needs no module; using it takes the feature `pkcs11`.
///
/// Path attributes that describe the library (such as `library-description`) are rejected rather than ignored, because users
/// would expect them to select a module; so is `pin-value`, because URIs must not contain secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pkcs11Uri {
    /// `token`: the token's label.
    pub token: Option<String>,
    /// `manufacturer`: the token's maker.
    pub manufacturer: Option<String>,
    /// `serial`: the token's serial number.
    pub serial: Option<String>,
    /// `model`: the token's model.
    pub model: Option<String>,
    /// `slot-id`: the slot that the token is in.
    pub slot_id: Option<u64>,
    /// `object`: the key's label (`CKA_LABEL`).
    pub object: Option<String>,
    /// `id`: the key's id (`CKA_ID`).
    pub id: Option<Vec<u8>>,
    /// `module-path`: the module's file.
    pub module_path: Option<PathBuf>,
    /// `pin-source`: the file that contains the PIN.
    pub pin_source: Option<PathBuf>,
}

impl Pkcs11Uri {
    /// Reads a URI with its scheme.
    ///
    /// # Errors
    ///
    /// Fails if an attribute is unknown, repeated or not decodable.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text).map_err(|why| {
            // The text may hold what should not be shown.
            let shown = if text.contains("pin-value") { "pkcs11:...".to_owned() } else { public_url(text) };
            Error::input(format!("the key URI {shown} is malformed: {why}")).remedy(
                "write it as in RFC 7512: pkcs11:token=LABEL;object=KEY?module-path=/usr/lib/MODULE.so&pin-source=file:/path",
            )
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("pkcs11:").ok_or("it does not start with pkcs11:")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self::default();
        for part in path.split(';').filter(|part| !part.is_empty()) {
            uri.path_attribute(part)?;
        }
        for part in query.split('&').filter(|part| !part.is_empty()) {
            uri.query_attribute(part)?;
        }
        if uri.object.is_none() && uri.id.is_none() {
            return Err("it names no key; add object=LABEL or id=%01".into());
        }
        Ok(uri)
    }

    fn path_attribute(&mut self, part: &str) -> Result<(), String> {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} has no value"))?;
        let once = |slot: &mut Option<String>| {
            if slot.replace(percent_decode(value)?).is_some() { Err(twice(name)) } else { Ok(()) }
        };
        match name {
            "token" => once(&mut self.token),
            "manufacturer" => once(&mut self.manufacturer),
            "serial" => once(&mut self.serial),
            "model" => once(&mut self.model),
            "object" => once(&mut self.object),
            "id" => match self.id.replace(percent_decode_bytes(value)?) {
                Some(_) => Err(twice(name)),
                None => Ok(()),
            },
            "slot-id" => {
                let digits = !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit());
                let id = value.parse().ok().filter(|_| digits).ok_or("slot-id must be a number")?;
                if self.slot_id.replace(id).is_some() { Err(twice(name)) } else { Ok(()) }
            }
            "type" if value == "private" => Ok(()),
            "type" => Err("type must be private: signing needs the private key".into()),
            _ => Err(format!("the attribute {name:?} is not supported")),
        }
    }

    fn query_attribute(&mut self, part: &str) -> Result<(), String> {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} has no value"))?;
        let value = percent_decode(value)?;
        let slot = match name {
            "module-path" => &mut self.module_path,
            "pin-source" => &mut self.pin_source,
            "pin-value" => {
                return Err(
                    "a PIN must not be in a URI; remove it, and use pin-source, the environment or the prompt".into()
                );
            }
            _ => return Err(format!("the attribute {name:?} is not supported")),
        };
        // RFC 7512 2.4: pin-source is a file: URI or the path of a file.
        let path = if name == "pin-source" { value.strip_prefix("file:").unwrap_or(&value) } else { &value };
        let path = path.strip_prefix("//").map_or(path, |rest| rest.get(rest.find('/').unwrap_or(0)..).unwrap_or(rest));
        if !path.starts_with('/') {
            return Err(format!("{name} must be an absolute path"));
        }
        if slot.replace(path.into()).is_some() { Err(twice(name)) } else { Ok(()) }
    }
}

fn twice(name: &str) -> String {
    format!("{name} is given twice")
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let text = [
            ("token", &self.token),
            ("manufacturer", &self.manufacturer),
            ("serial", &self.serial),
            ("model", &self.model),
        ];
        parts.extend(text.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?)))));
        parts.extend(self.slot_id.map(|id| format!("slot-id={id}")));
        parts.extend(self.object.as_deref().map(|object| format!("object={}", encode(object))));
        if let Some(id) = &self.id {
            let id = id.iter().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
            parts.push(format!("id={id}"));
        }
        write!(f, "pkcs11:{}", parts.join(";"))?;
        let mut separator = '?';
        for (name, prefix, path) in [("module-path", "", &self.module_path), ("pin-source", "file:", &self.pin_source)]
        {
            if let Some(path) = path {
                write!(f, "{separator}{name}={prefix}{}", encode(&path.to_string_lossy()))?;
                separator = '&';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_that_name_a_private_key_are_read() {
        let uri = Pkcs11Uri::parse(
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;\
             object=my-certificate;type=private;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin",
        )
        .unwrap();
        assert_eq!(uri.token.as_deref(), Some("The Software PKCS#11 Softtoken"));
        assert_eq!(uri.manufacturer.as_deref(), Some("Snake Oil, Inc."));
        assert_eq!(uri.id.as_deref(), Some(&[0x69, 0x95, 0x3e, 0x5c, 0xf4, 0xbd, 0xec, 0x91][..]));
        assert_eq!(uri.pin_source, Some("/etc/token_pin".into()));
        assert_eq!(Pkcs11Uri::parse(&uri.to_string()).unwrap(), uri);
        let uri = Pkcs11Uri::parse("pkcs11:slot-id=327;id=%01?module-path=/m.so").unwrap();
        assert_eq!((uri.slot_id, uri.module_path.clone()), (Some(327), Some("/m.so".into())));
        assert_eq!(Pkcs11Uri::parse(&uri.to_string()).unwrap(), uri);
        let uri = Pkcs11Uri::parse("pkcs11:object=a?pin-source=file:///etc/pin").unwrap();
        assert_eq!(uri.pin_source, Some("/etc/pin".into()));
    }

    #[test]
    fn what_would_mislead_is_refused() {
        for (text, part) in [
            ("pkcs11:token=a", "names no key"),
            ("pkcs11:", "names no key"),
            ("pkcs11:object=a;object=b", "object is given twice"),
            ("pkcs11:object=a;type=public", "type must be private"),
            ("pkcs11:object=a;slot-id=x", "slot-id must be a number"),
            ("pkcs11:object=a;slot-id=+1", "slot-id must be a number"),
            ("pkcs11:object=a;library-version=3", "\"library-version\" is not supported"),
            ("pkcs11:object=a?pin-value=1234", "a PIN must not be in a URI"),
            ("pkcs11:object=a?module-path=m.so", "must be an absolute path"),
            ("pkcs11:object=a?pin-source=|/bin/cat", "must be an absolute path"),
            ("pkcs11:object=a?x-y=1", "\"x-y\" is not supported"),
            ("pkcs11:object", "has no value"),
            ("pkcs11:object=%4", "two hex digits"),
        ] {
            let error = Pkcs11Uri::parse(text).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(!error.to_string().contains("1234"), "{error}");
        }
    }
}
