//! A place with a private place beside it, for objects that must not be public.

use super::remote::{Backend, Remote};

/// How two places overlap, if one can be read through the other.
pub(super) fn overlap(public: &Remote, private: &Remote) -> Option<&'static str> {
    let (a, b) = match (&public.kind, &private.kind) {
        (Backend::Folder(a), Backend::Folder(b)) => {
            return relation(a == b, b.starts_with(a), a.starts_with(b));
        }
        (Backend::Store(_), Backend::Store(_)) => (server(public), server(private)),
        _ => return None,
    };
    if a != b {
        return None;
    }
    let (a, b) = (&public.prefix, &private.prefix);
    relation(a == b, b.prefix_matches(a), a.prefix_matches(b))
}

fn relation(same: bool, inside: bool, around: bool) -> Option<&'static str> {
    match (same, inside, around) {
        (true, ..) => Some("is the same place as"),
        (_, true, _) => Some("lies inside"),
        (_, _, true) => Some("lies around"),
        _ => None,
    }
}

/// What identifies a store: scheme, bucket or host, and the server if the name does not imply it.
fn server(remote: &Remote) -> (String, String, String) {
    let (scheme, rest) = remote.name().split_once("://").unwrap_or(("", remote.name()));
    let scheme = match scheme {
        "s3a" => "s3",
        "azure" | "abfs" | "abfss" => "az",
        other => other,
    };
    (scheme.to_owned(), rest.split('/').next().unwrap_or_default().to_owned(), remote.endpoint.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Rule;
    use crate::publish::Options;

    fn open(place: &str) -> Remote {
        let variables = [("AWS_REGION".to_owned(), "x".to_owned())].into_iter().collect();
        Remote::open_with(place, &Options { variables, ..Options::default() }).unwrap()
    }

    #[test]
    fn a_private_place_is_never_within_reach_of_the_public_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(path("public")).unwrap();
        std::fs::create_dir(path("other")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(path("public"), path("link")).unwrap();
        for (public, private, why) in [
            (path("public"), path("public"), "is the same place as"),
            (path("public"), path("public/private"), "lies inside"),
            (path("public/repo"), path("public"), "lies around"),
            #[cfg(unix)]
            (path("public"), path("link/private"), "lies inside"),
            (path("public"), path("other/../public/x"), "lies inside"),
            ("s3://bucket/a".into(), "s3://bucket/a".into(), "is the same place as"),
            ("s3://bucket/a".into(), "s3a://bucket/a/b".into(), "lies inside"),
            ("s3://bucket/".into(), "s3://bucket/b".into(), "lies inside"),
            ("s3://bucket/a/b".into(), "s3://bucket/a".into(), "lies around"),
        ] {
            let error = open(&public).with_private(open(&private)).unwrap_err();
            assert_eq!(error.broken_rule(), Some(Rule::PublishPrivate));
            assert!(error.to_string().contains(why), "{public} {private}: {error}");
        }
        for (public, private) in [
            (path("public"), path("public2")),
            (path("public"), path("private")),
            ("s3://bucket/a".into(), "s3://bucket/ab".into()),
            ("s3://bucket/a".into(), "s3://other/a".into()),
            ("s3://bucket/a".into(), "gs://bucket/a".into()),
            (path("public"), "s3://bucket/a".into()),
        ] {
            open(&public).with_private(open(&private)).unwrap();
        }
    }
}
