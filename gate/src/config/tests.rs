use super::*;

const SOUND: &str = r#"
schema = 1
listen = "127.0.0.1:0"
secret = "secret"
private = "file:private"
state = "file:state"
enrolments = "file:enrolments"
[verifiers.v]
jwks = "v.json"
algorithms = ["ES256"]
[pcrs.golden]
"sha256:7" = ["0000000000000000000000000000000000000000000000000000000000000000"]
[cohorts."stable.canary"]
least = "affirming"
evidence = ["tpm2"]
pcrs = "golden"
[cohorts."stable.lab"]
least = "warning"
evidence = ["ear"]
claims = { "submods.os.build" = ["a", "b"] }
"#;

fn load(text: &str) -> Result<Config> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gate.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path)
}

#[test]
fn sound_settings_are_taken() {
    let config = load(SOUND).unwrap();
    assert_eq!(config.cohorts["stable.canary"].token.as_secs(), 600);
    assert!(config.cohorts["stable.lab"].counts(Kind::Ear) && !config.cohorts["stable.lab"].counts(Kind::Tpm2));
}

#[test]
fn settings_that_would_let_in_the_wrong_ones_are_refused() {
    for (from, to, says) in [
        ("schema = 1", "schema = 2", "schema 2"),
        ("schema = 1", "schema = 1\nnonsense = 1", "nonsense"),
        ("127.0.0.1:0", "0.0.0.0:80", "without [tls]"),
        ("\"stable.canary\"", "\"stable\"", "not the role of a cohort"),
        ("\"stable.canary\"", "stable.canary", "canary"),
        ("\"ES256\"", "\"HS256\"", "HS256 is not taken"),
        ("\"ES256\"", "\"none\"", "none is not taken"),
        ("\"ES256\"", "", "name ES256 or EdDSA"),
        ("jwks = \"v.json\"", "jwks = \"http://example.com/\"", "https only"),
        ("\"sha256:7\"", "\"sha1:7\"", "no register"),
        ("\"sha256:7\"", "\"sha256:24\"", "no register"),
        ("[\"0000000000000000000000000000000000000000000000000000000000000000\"]", "[]", "values it may have"),
        ("pcrs = \"golden\"", "", "name the PCR policy"),
        ("pcrs = \"golden\"", "pcrs = \"gold\"", "no [pcrs.gold]"),
        ("least = \"affirming\"", "least = \"contraindicated\"", "contraindicated"),
        ("least = \"affirming\"", "least = \"sure\"", "sure"),
        ("evidence = [\"tpm2\"]", "evidence = [\"none\"]", "cannot reach"),
        ("evidence = [\"ear\"]", "", "only an EAR has claims"),
        ("evidence = [\"ear\"]", "evidence = [\"ear\"]\nverifiers = [\"w\"]", "no [verifiers.w]"),
        ("evidence = [\"ear\"]", "evidence = [\"ear\"]\ntoken = \"2d\"", "1 day"),
        ("evidence = [\"ear\"]", "evidence = [\"ear\"]\ntoken = \"2 weeks\"", "no span"),
        ("[verifiers.v]", "[limits]\nper_second = 0\n[verifiers.v]", "turn everyone away"),
        ("[verifiers.v]", "[tls]\ncertificate = \"c\"\nkey = \"k\"\n[verifiers.v]", "device_ca is missing"),
    ] {
        assert!(SOUND.contains(from), "{from}");
        let error = load(&SOUND.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(says), "{from} -> {to}: {error}");
    }
}
