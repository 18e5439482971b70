//! A report as JUnit XML, which CI systems show: a suite a kind of check, a case a rule.

use std::fmt::Write as _;

use tidegate_model::text::one_line;
use tidegate_model::time;

use crate::policy::CheckKind;
use crate::release::report::{CheckResult, ValidationReport, Verdict};

/// The report as one XML document.
pub fn junit(report: &ValidationReport) -> String {
    let count = |verdict: Verdict, findings: &[&CheckResult]| findings.iter().filter(|f| f.verdict == verdict).count();
    let all: Vec<&CheckResult> = report.findings.iter().collect();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string does not fail.
    let _ = writeln!(
        xml,
        "<testsuites name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\">",
        escape(&report.release),
        all.len(),
        count(Verdict::Fail, &all),
        count(Verdict::NotApplicable, &all)
    );
    for kind in CheckKind::ALL {
        let findings: Vec<&CheckResult> = all.iter().copied().filter(|finding| finding.kind == kind).collect();
        if findings.is_empty() {
            continue;
        }
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{kind}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" timestamp=\"{}\">",
            findings.len(),
            count(Verdict::Fail, &findings),
            count(Verdict::NotApplicable, &findings),
            time::format(report.at)
        );
        let _ = writeln!(xml, "    <properties>");
        let _ = writeln!(xml, "      <property name=\"manifest\" value=\"{}\"/>", report.manifest);
        let _ = writeln!(xml, "    </properties>");
        for finding in findings {
            case(&mut xml, finding);
        }
        let _ = writeln!(xml, "  </testsuite>");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn case(xml: &mut String, finding: &CheckResult) {
    let CheckResult { rule, kind, title, verdict, detail } = finding;
    let (rule, title, detail) = (escape(rule), escape(title), escape(detail));
    let _ = write!(xml, "    <testcase classname=\"{kind}\" name=\"{rule} {title}\"");
    let _ = match verdict {
        Verdict::Pass => writeln!(xml, "/>"),
        Verdict::Fail => writeln!(xml, ">\n      <failure type=\"{rule}\" message=\"{detail}\"/>\n    </testcase>"),
        Verdict::NotApplicable => writeln!(xml, ">\n      <skipped message=\"{detail}\"/>\n    </testcase>"),
        // JUnit has no warnings: it passes, with a note.
        Verdict::Warn => writeln!(xml, ">\n      <system-out>look: {detail}</system-out>\n    </testcase>"),
    };
}

/// Text as it may stand in an attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use tidegate_model::digest::Digest;

    use super::*;

    #[test]
    fn a_suite_a_kind_and_a_case_a_rule() {
        let finding = |rule: &str, kind, verdict, detail: &str| CheckResult {
            rule: rule.into(),
            kind,
            title: "a & b".into(),
            verdict,
            detail: detail.into(),
        };
        let report = ValidationReport {
            schema: 1,
            release: "stable/os/1.0.0".into(),
            manifest: Digest::of(b""),
            at: DateTime::UNIX_EPOCH,
            tool: "0".into(),
            findings: vec![
                finding("V-ART-01", CheckKind::ArtifactIntegrity, Verdict::Pass, "fine"),
                finding("V-ART-02", CheckKind::ArtifactIntegrity, Verdict::Fail, "<\"bad\">\u{1}"),
                finding("X-A", CheckKind::OwnChecks, Verdict::Warn, "hm"),
                finding("X-B", CheckKind::OwnChecks, Verdict::NotApplicable, "-"),
            ],
        };
        let xml = junit(&report);
        for part in [
            "<testsuites name=\"stable/os/1.0.0\" tests=\"4\" failures=\"1\" errors=\"0\" skipped=\"1\">",
            "<testsuite name=\"artifact-integrity\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\" timestamp=\"1970-01-01T00:00:00Z\">",
            "<testcase classname=\"artifact-integrity\" name=\"V-ART-01 a &amp; b\"/>",
            "<failure type=\"V-ART-02\" message=\"&lt;&quot;bad&quot;&gt;\\u0001\"/>",
            "<system-out>look: hm</system-out>",
            "<skipped message=\"-\"/>",
        ] {
            assert!(xml.contains(part), "{part} is not in\n{xml}");
        }
        assert_eq!(xml.matches("<testsuite ").count(), 2);
        assert_eq!(xml.matches("<testcase").count(), 4);
    }
}
