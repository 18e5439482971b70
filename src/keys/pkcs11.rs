//! Keys on PKCS#11 tokens: Ed25519 (`CKM_EDDSA`) and P-256 (`CKM_ECDSA`).
//!
//! A module is loaded when its first key is opened, and stays loaded until the process ends: some modules fail when they are
//! finalized and initialized again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as TokenError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use p256::ecdsa;
use sha2::{Digest as _, Sha256};
use tidegate_model::text::public_url;
use tidegate_tuf::key::Key;
use zeroize::Zeroizing;

use super::generate::Kind as KeyKind;
use super::pkcs11_uri::Pkcs11Uri;
use super::{Passphrases, Signer, public};
use crate::error::{Error, Kind, Result, Rule};
use crate::fs;

/// The default module if the URI names none.
const MODULE_VARIABLE: &str = "TIDEGATE_PKCS11_MODULE";
/// The object identifiers of the curves, in DER, as `CKA_EC_PARAMS` has them.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// Older modules name the curve in a `PrintableString` instead.
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";

static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// A key on a token, with a session that is logged in.
#[derive(Debug)]
pub struct TokenKey {
    name: String,
    public: Key,
    kind: KeyKind,
    session: Session,
    handle: ObjectHandle,
}

impl TokenKey {
    /// Finds the key of `uri` and logs in to its token.
    ///
    /// `declared` is the public part from `tidegate.toml`, used if the token stores no public object beside the key.
    ///
    /// # Errors
    ///
    /// Fails if the token or the key cannot be found, if the PIN is wrong, or if the token requires a PIN for each signature.
    pub fn open(
        name: &str,
        uri: &Pkcs11Uri,
        declared: Option<&Key>,
        passphrases: &mut dyn Passphrases,
    ) -> Result<Self> {
        let (module, slot, info) = token(name, uri)?;
        let session = module.open_ro_session(slot).map_err(|e| failed(name, "open a session with the token", e))?;
        log_in(name, uri, &info, &session, passphrases)?;
        let handle = find(name, uri, &session)?;
        let always = session
            .get_attributes(handle, &[AttributeType::AlwaysAuthenticate])
            .is_ok_and(|found| found.contains(&Attribute::AlwaysAuthenticate(true)));
        if always {
            return Err(Error::input(format!("key {name}: its token asks for the PIN before each signature"))
                .remedy("change the key's policy on the token, or attach it with command: and the vendor's tool"));
        }
        let public = match read_public(name, uri, &session, handle)? {
            Some(public) => public,
            None => declared.cloned().ok_or_else(|| {
                Error::input(format!("key {name}: the token has no public key for the private one")).remedy(
                    "store the public key on the token under the same id, or give the public part in tidegate.toml",
                )
            })?,
        };
        let kind = if public.scheme() == "ed25519" { KeyKind::Ed25519 } else { KeyKind::P256 };
        Ok(Self { name: name.to_owned(), public, kind, session, handle })
    }

    /// Generates a key pair on the token of `uri`, not extractable, under the URI's label and id.
    ///
    /// # Errors
    ///
    /// Fails if the token cannot be opened or already contains a key of that name.
    pub fn generate(name: &str, uri: &Pkcs11Uri, kind: KeyKind, passphrases: &mut dyn Passphrases) -> Result<Key> {
        let (module, slot, info) = token(name, uri)?;
        let session = module.open_rw_session(slot).map_err(|e| failed(name, "open a session with the token", e))?;
        log_in(name, uri, &info, &session, passphrases)?;
        if !session.find_objects(&template(uri)).map_err(|e| failed(name, "search the token", e))?.is_empty() {
            return Err(Error::refused(
                Rule::KeyExists,
                format!("key {name}: the token already has a private key of that name"),
            )
            .remedy("choose another object label or id"));
        }
        let (mechanism, curve) = match kind {
            KeyKind::Ed25519 => (Mechanism::EccEdwardsKeyPairGen, ED25519),
            KeyKind::P256 => (Mechanism::EccKeyPairGen, P256),
        };
        let id = uri.id.clone().unwrap_or_else(|| name.as_bytes().to_vec());
        let label = uri.object.clone().unwrap_or_else(|| name.to_owned()).into_bytes();
        let common = [Attribute::Token(true), Attribute::Id(id), Attribute::Label(label)];
        let mut public = common.to_vec();
        public.extend([Attribute::Private(false), Attribute::Verify(true), Attribute::EcParams(curve.to_vec())]);
        let mut private = common.to_vec();
        private.extend([
            Attribute::Private(true),
            Attribute::Sign(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
        ]);
        let (point, _) = session
            .generate_key_pair(&mechanism, &public, &private)
            .map_err(|e| failed(name, "create a key pair on the token", e))?;
        public_of(name, &session, point)
    }
}

impl Signer for TokenKey {
    fn public(&self) -> &Key {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let refused = |e| failed(&self.name, "sign", e);
        match self.kind {
            KeyKind::Ed25519 => {
                let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
                self.session.sign(&mechanism, self.handle, message).map_err(refused)
            }
            // The plain mechanism over our own digest: every token has it, CKM_ECDSA_SHA256 only newer ones.
            KeyKind::P256 => {
                let digest = Sha256::digest(message);
                let raw = self.session.sign(&Mechanism::Ecdsa, self.handle, &digest).map_err(refused)?;
                let signature = ecdsa::Signature::from_slice(&raw).map_err(|e| {
                    Error::trust(format!("key {}: the token's answer is no signature", self.name)).with_source(e)
                })?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
        }
    }
}

/// The module, and the one token in it that matches the URI.
fn token(name: &str, uri: &Pkcs11Uri) -> Result<(Pkcs11, Slot, TokenInfo)> {
    let module = load(name, uri)?;
    let slots = module.get_slots_with_initialized_token().map_err(|e| failed(name, "list the tokens", e))?;
    let mut fitting = Vec::new();
    let mut labels = Vec::new();
    for slot in slots {
        let info = module.get_token_info(slot).map_err(|e| failed(name, "read a token's description", e))?;
        let fits = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found.trim_end());
        labels.push(format!("{:?}", info.label().trim_end()));
        if fits(&uri.token, info.label())
            && fits(&uri.manufacturer, info.manufacturer_id())
            && fits(&uri.model, info.model())
            && fits(&uri.serial, info.serial_number())
            && uri.slot_id.is_none_or(|id| id == slot.id())
        {
            fitting.push((slot, info));
        }
    }
    match (fitting.pop(), fitting.is_empty()) {
        (Some((slot, info)), true) => Ok((module, slot, info)),
        (None, _) => {
            let there = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
            Err(Error::new(Kind::Io, format!("key {name}: the token of {} is not connected", shown(uri)))
                .with_source(io::Error::new(io::ErrorKind::NotFound, "no such token"))
                .remedy(format!("connect it; connected tokens: {there}")))
        }
        (Some(_), false) => Err(Error::input(format!("key {name}: several tokens fit {}", shown(uri)))
            .remedy(format!("add token=, serial= or slot-id= to the URI; connected tokens: {}", labels.join(", ")))),
    }
}

/// The URI as messages show it.
fn shown(uri: &Pkcs11Uri) -> String {
    public_url(&uri.to_string())
}

fn load(name: &str, uri: &Pkcs11Uri) -> Result<Pkcs11> {
    let path =
        uri.module_path.clone().or_else(|| std::env::var_os(MODULE_VARIABLE).map(PathBuf::from)).ok_or_else(|| {
            Error::input(format!("key {name}: {} names no module", shown(uri)))
                .remedy(format!("add ?module-path=/usr/lib/MODULE.so to the URI, or set {MODULE_VARIABLE}"))
        })?;
    if path.is_relative() {
        return Err(Error::input(format!("key {name}: the module {} is not an absolute path", path.display()))
            .remedy("no module is loaded from the folder in which a command is called"));
    }
    // A poisoned lock only means that another thread gave up; the map is whole.
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = modules.get(&path) {
        return Ok(module.clone());
    }
    if !path.exists() {
        return Err(Error::io("load", &path, io::ErrorKind::NotFound.into())
            .remedy("install the token's PKCS#11 module, or correct module-path"));
    }
    let module = Pkcs11::new(&path).map_err(|e| failed(name, &format!("load {}", path.display()), e))?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(TokenError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(e) => return Err(failed(name, &format!("start {}", path.display()), e)),
    }
    modules.insert(path, module.clone());
    Ok(module)
}

fn log_in(
    name: &str,
    uri: &Pkcs11Uri,
    info: &TokenInfo,
    session: &Session,
    passphrases: &mut dyn Passphrases,
) -> Result<()> {
    if !info.login_required() {
        return Ok(());
    }
    let login = if info.protected_authentication_path() {
        // The PIN is typed at the device itself.
        session.login(UserType::User, None)
    } else {
        let pin = match &uri.pin_source {
            Some(path) => read_pin(name, path)?,
            None => passphrases.pin(name, info.label().trim_end())?,
        };
        session.login(UserType::User, Some(&AuthPin::new(pin.as_str().into())))
    };
    match login {
        Ok(()) | Err(TokenError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(TokenError::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
            Err(Error::input(format!("key {name}: the token refuses the PIN"))
                .remedy("check it before the next try: tokens lock after a few failures"))
        }
        Err(TokenError::Pkcs11(RvError::PinLocked, _)) => {
            Err(Error::input(format!("key {name}: the token's PIN is locked"))
                .remedy("unlock it with its PUK or SO PIN"))
        }
        Err(e) => Err(failed(name, "log in to the token", e)),
    }
}

fn read_pin(name: &str, path: &Path) -> Result<Zeroizing<String>> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
    super::check_mode(name, path, &metadata)?;
    let bytes = Zeroizing::new(fs::read(path, 4096)?);
    let text = std::str::from_utf8(&bytes)
        .map_err(|e| Error::input(format!("{} is not text", path.display())).with_source(e))?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn template(uri: &Pkcs11Uri) -> Vec<Attribute> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    template.extend(uri.object.as_ref().map(|label| Attribute::Label(label.as_bytes().to_vec())));
    template.extend(uri.id.clone().map(Attribute::Id));
    template
}

fn find(name: &str, uri: &Pkcs11Uri, session: &Session) -> Result<ObjectHandle> {
    let mut found = session.find_objects(&template(uri)).map_err(|e| failed(name, "search the token", e))?;
    match (found.pop(), found.is_empty()) {
        (Some(handle), true) => Ok(handle),
        (None, _) => Err(Error::input(format!("key {name}: the token holds no private key {}", shown(uri)))
            .remedy("list what it holds: pkcs11-tool --module MODULE --login --list-objects")),
        (Some(_), false) => {
            Err(Error::input(format!("key {name}: the token holds several private keys that fit {}", shown(uri)))
                .remedy("name one by its id as well: id=%01"))
        }
    }
}

/// The public part: from the public object with the same id or label, else from the private one.
fn read_public(name: &str, uri: &Pkcs11Uri, session: &Session, private: ObjectHandle) -> Result<Option<Key>> {
    let mut template = vec![Attribute::Class(ObjectClass::PUBLIC_KEY)];
    let id = session.get_attributes(private, &[AttributeType::Id]).map_err(|e| failed(name, "read the key", e))?;
    match id.into_iter().next() {
        Some(Attribute::Id(id)) if !id.is_empty() => template.push(Attribute::Id(id)),
        _ => template.extend(uri.object.as_ref().map(|label| Attribute::Label(label.as_bytes().to_vec()))),
    }
    let found = session.find_objects(&template).map_err(|e| failed(name, "search the token", e))?;
    match found.first() {
        Some(handle) => public_of(name, session, *handle).map(Some),
        None => Ok(public_of(name, session, private).ok()),
    }
}

fn public_of(name: &str, session: &Session, handle: ObjectHandle) -> Result<Key> {
    let attributes = session
        .get_attributes(handle, &[AttributeType::KeyType, AttributeType::EcParams, AttributeType::EcPoint])
        .map_err(|e| failed(name, "read the public key", e))?;
    let (mut kind, mut curve, mut point) = (None, None, None);
    for attribute in attributes {
        match attribute {
            Attribute::KeyType(found) => kind = Some(found),
            Attribute::EcParams(found) => curve = Some(found),
            Attribute::EcPoint(found) => point = Some(found),
            _ => {}
        }
    }
    let point = point.unwrap_or_default();
    match (kind, curve.as_deref()) {
        (Some(KeyType::EC_EDWARDS), Some(ED25519 | ED25519_NAME)) => {
            let bytes = unwrap_octets(&point, 32);
            let bytes: [u8; 32] = bytes.try_into().map_err(|_| unusable(name, "its public point is not 32 bytes"))?;
            Ok(Key::ed25519(&bytes))
        }
        (Some(KeyType::EC), Some(P256)) => {
            let key = p256::PublicKey::from_sec1_bytes(unwrap_octets(&point, 65))
                .map_err(|_| unusable(name, "its public point is not on P-256"))?;
            public::p256_key(&key)
        }
        _ => Err(unusable(name, "it is neither Ed25519 nor P-256")),
    }
}

/// `CKA_EC_POINT` is the point in a DER OCTET STRING; some modules return it without.
fn unwrap_octets(bytes: &[u8], length: usize) -> &[u8] {
    match bytes {
        [0x04, found, rest @ ..] if usize::from(*found) == length && rest.len() == length => rest,
        _ => bytes,
    }
}

fn unusable(name: &str, why: &str) -> Error {
    Error::input(format!("key {name}: the token's key cannot sign here: {why}"))
}

fn failed(name: &str, what: &str, source: TokenError) -> Error {
    Error::new(Kind::Io, format!("key {name}: cannot {what}")).with_source(source)
}
