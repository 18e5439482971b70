use super::*;

const VALID: &str = r#"
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

fn load(text: &str) -> Result<GateConfig> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gate.toml");
    std::fs::write(&path, text).unwrap();
    GateConfig::load(&path)
}

#[test]
fn loads_valid_settings() {
    let config = load(VALID).unwrap();
    assert_eq!(config.cohorts["stable.canary"].token.seconds(), 600);
    assert!(
        config.cohorts["stable.lab"].accepts(EvidenceKind::Ear)
            && !config.cohorts["stable.lab"].accepts(EvidenceKind::Tpm2)
    );
}

/// Each change of the valid settings would admit devices by mistake, or admit none.
#[test]
fn refuses_unsafe_settings() {
    for (from, to, expected) in [
        ("schema = 1", "schema = 2", "schema 2"),
        ("schema = 1", "schema = 1\nnonsense = 1", "nonsense"),
        ("127.0.0.1:0", "0.0.0.0:80", "without [tls]"),
        ("enrolments =", "receipts = \"file:receipts\"\nenrolments =", "set repository"),
        ("enrolments =", "repository = \"http://example.com/v1\"\nenrolments =", "repository: use https"),
        ("enrolments =", "names = [\"*.example.com\"]\nenrolments =", "names: write the hosts"),
        ("enrolments =", "names = [\"https://example.com\"]\nenrolments =", "names: write the hosts"),
        ("enrolments =", "proxy_protocol = { trusted = [\"balancer\"] }\nenrolments =", "is not a network"),
        ("enrolments =", "limits = { handshakes_per_second = 0 }\nenrolments =", "0 would refuse every request"),
        ("enrolments =", "audit = { interval = \"2h\" }\nenrolments =", "audit.interval: must be between"),
        ("\"stable.canary\"", "\"stable\"", "not a cohort's role"),
        ("\"stable.canary\"", "stable.canary", "canary"),
        ("\"ES256\"", "\"HS256\"", "unknown variant `HS256`"),
        ("\"ES256\"", "\"none\"", "unknown variant `none`"),
        ("\"ES256\"", "", "name ES256 or EdDSA"),
        ("jwks = \"v.json\"", "jwks = \"http://example.com/\"", "use https"),
        ("\"sha256:7\"", "\"sha1:7\"", "is not a PCR"),
        ("\"sha256:7\"", "\"sha256:24\"", "is not a PCR"),
        ("[\"0000000000000000000000000000000000000000000000000000000000000000\"]", "[]", "list the allowed values"),
        ("pcrs = \"golden\"", "", "name the PCR policy"),
        ("pcrs = \"golden\"", "pcrs = \"gold\"", "no [pcrs.gold]"),
        ("least = \"affirming\"", "least = \"contraindicated\"", "contraindicated"),
        ("least = \"affirming\"", "least = \"sure\"", "sure"),
        ("evidence = [\"tpm2\"]", "evidence = [\"none\"]", "cannot reach"),
        ("evidence = [\"ear\"]", "", "only an EAR has claims"),
        ("evidence = [\"ear\"]", "evidence = [\"ear\"]\nverifiers = [\"w\"]", "no [verifiers.w]"),
        ("evidence = [\"ear\"]", "evidence = [\"ear\"]\ntoken = \"2d\"", "1 day"),
        ("evidence = [\"ear\"]", "evidence = [\"ear\"]\ntoken = \"2 weeks\"", "not a duration"),
        ("[verifiers.v]", "[limits]\nper_second = 0\n[verifiers.v]", "refuse every request"),
        ("[verifiers.v]", "[tls]\ncertificate = \"c\"\nkey = \"k\"\n[verifiers.v]", "device_ca is missing"),
    ] {
        assert!(VALID.contains(from), "{from}");
        let error = load(&VALID.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(expected), "{from} -> {to}: {error}");
    }
}
