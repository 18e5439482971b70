//! The profiles of the AWS command line: `~/.aws/credentials` and `~/.aws/config`.
//!
//! `object_store` reads the environment and the roles of instances and containers, but no profiles.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use tidegate_client::command::with_clean_environment;

use super::variables::Variables;
use crate::error::{Error, Result};

/// The maximum length of a profiles file.
const MAX: u64 = 4 << 20;

/// The active profile.
#[derive(Debug, Default)]
pub(super) struct Profile {
    name: String,
    values: BTreeMap<String, String>,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// Keys for signing requests.
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
}

impl Profile {
    /// The profile named by `AWS_PROFILE`, else `default`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails if `AWS_PROFILE` names a profile that does not exist.
    pub(super) fn load(variables: &Variables) -> Result<Option<Self>> {
        let variable = |name: &str| variables.value(name).map(ToOwned::to_owned);
        let home = variable("HOME").or_else(|| variable("USERPROFILE")).map(|home| PathBuf::from(home).join(".aws"));
        let file =
            |named: &str, name: &str| variable(named).map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(name)));
        let read = |path: Option<PathBuf>| -> Result<String> {
            let Some(path) = path else { return Ok(String::new()) };
            let bytes = crate::fs::read_if_exists(&path, MAX)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let config = read(file("AWS_CONFIG_FILE", "config"))?;
        let credentials = read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?;
        let named = variable("AWS_PROFILE");
        let found = Self::parse(named.as_deref().unwrap_or("default"), &config, &credentials);
        match (found, named) {
            (None, Some(name)) => {
                Err(Error::input(format!("AWS_PROFILE names the profile {name}, which does not exist"))
                    .remedy("`aws configure list-profiles` lists those that do"))
            }
            (found, _) => Ok(found),
        }
    }

    fn parse(name: &str, config: &str, credentials: &str) -> Option<Self> {
        let in_config = if name == "default" { name.to_owned() } else { format!("profile {name}") };
        let mut values = section(config, &in_config);
        // The credentials file takes precedence over the configuration file.
        for (key, value) in section(credentials, name).into_iter().flatten() {
            values.get_or_insert_default().insert(key, value);
        }
        let values = values?;
        let (region, endpoint) = (values.get("region").cloned(), values.get("endpoint_url").cloned());
        Some(Self { name: name.to_owned(), values, region, endpoint })
    }

    /// Its keys: from the file, or from the program that it names. `None` if it has none, as with an instance's role.
    pub(super) fn keys(&self) -> Result<Option<Keys>> {
        let value = |key: &str| self.values.get(key).cloned();
        if let (Some(id), Some(secret)) = (value("aws_access_key_id"), value("aws_secret_access_key")) {
            return Ok(Some(Keys { id, secret, token: value("aws_session_token") }));
        }
        if let Some(command) = value("credential_process") {
            return self.ask(&command).map(Some);
        }
        if ["role_arn", "sso_session", "sso_start_url", "login_session"]
            .iter()
            .any(|key| self.values.contains_key(*key))
        {
            return Err(Error::input(format!("the AWS profile {} gets its keys by a sign-in or a role", self.name))
                .remedy(format!(
                    "put them into the environment: eval \"$(aws configure export-credentials --profile {} --format env)\"",
                    self.name
                )));
        }
        Ok(None)
    }

    fn ask(&self, command: &str) -> Result<Keys> {
        let failed = |why: &str| {
            Error::input(format!("the credential_process of the AWS profile {} {why}", self.name))
                .remedy("run that command by hand; it must print the keys as JSON with Version 1")
        };
        // It is the caller's own configuration that names this program, which may need what else gives access to the keys.
        let inherited = |name: &OsString| name != "PATH" && !name.to_string_lossy().starts_with("TIDEGATE_");
        let out = with_clean_environment("sh")
            .envs(std::env::vars_os().filter(|(name, _)| inherited(name)))
            .args(["-c", command])
            .output()
            .map_err(|error| failed("cannot be run").with_source(error))?;
        if !out.status.success() {
            return Err(failed("failed"));
        }
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).map_err(|_| failed("printed no JSON"))?;
        let text = |key: &str| json.get(key).and_then(serde_json::Value::as_str).map(ToOwned::to_owned);
        match (text("AccessKeyId"), text("SecretAccessKey")) {
            (Some(id), Some(secret)) => Ok(Keys { id, secret, token: text("SessionToken") }),
            _ => Err(failed("printed no keys")),
        }
    }
}

/// The keys and values of a section, or `None` if it does not exist. Nested settings, which are indented, are skipped.
fn section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut inside = false;
    for line in text.lines() {
        if let Some(header) = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = header.split_whitespace().collect::<Vec<_>>().join(" ") == name;
            if inside {
                found.get_or_insert_default();
            }
        } else if inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            found.get_or_insert_default().insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "# c\n[default]\nregion = eu-west-1\ns3 =\n  max_concurrent_requests = 20\n[profile ci]\nregion=eu-north-1\nendpoint_url = https://s3.example.com\n[profile run]\ncredential_process = echo '{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"B\",\"SessionToken\":\"C\"}'\n[profile role]\nrole_arn = arn:x\n";
    const CREDENTIALS: &str = "[default]\naws_access_key_id = ID\naws_secret_access_key = KEY\n[ci]\naws_access_key_id=CI\naws_secret_access_key=SECRET\naws_session_token=TOKEN\n";

    #[test]
    fn profiles_are_read_as_the_command_line_of_aws_reads_them() {
        let default = Profile::parse("default", CONFIG, CREDENTIALS).unwrap();
        assert_eq!(default.region.as_deref(), Some("eu-west-1"));
        assert_eq!(default.keys().unwrap().unwrap().id, "ID");
        let ci = Profile::parse("ci", CONFIG, CREDENTIALS).unwrap();
        let keys = ci.keys().unwrap().unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), keys.token.as_deref()), ("CI", "SECRET", Some("TOKEN")));
        assert_eq!(ci.endpoint.as_deref(), Some("https://s3.example.com"));
        assert!(Profile::parse("other", CONFIG, CREDENTIALS).is_none());
        let role = Profile::parse("role", CONFIG, CREDENTIALS).unwrap().keys().err().unwrap();
        assert!(role.remedy_text().unwrap().contains("export-credentials --profile role"), "{role}");
    }

    #[cfg(unix)]
    #[test]
    fn a_program_may_give_the_keys() {
        let keys = Profile::parse("run", CONFIG, "").unwrap().keys().unwrap().unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), keys.token.as_deref()), ("A", "B", Some("C")));
    }
}
