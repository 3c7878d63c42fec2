//! The dashboard: a page of static files, embedded into the program.
//!
//! It holds nothing of the cluster: the page asks the API for everything, as its user. There is no build step; what lies in
//! `page/` is what the browser gets. `page/vendor/README.md` says where the foreign files come from.

/// A file of the page.
#[derive(Debug)]
pub struct File {
    /// Its path below the page's own.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

/// What a browser may load and run for the page: its own files, no inline script or style, and nobody may frame it.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// The file at a path below the page's own; the empty path is the page itself.
pub fn file(path: &str) -> Option<&'static File> {
    let path = if path.is_empty() { "index.html" } else { path };
    FILES.iter().find(|file| file.path == path)
}

macro_rules! files {
    ($($path:literal $content_type:ident,)*) => {
        &[$(File {
            path: $path,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../page/", $path)),
        }),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

#[rustfmt::skip]
const FILES: &[File] = files! {
    "index.html" HTML,
    "icon.svg" IMAGE,
    "style/base.css" STYLE,
    "style/parts.css" STYLE,
    "main.js" SCRIPT,
    "api.js" SCRIPT,
    "collection.js" SCRIPT,
    "dom.js" SCRIPT,
    "format.js" SCRIPT,
    "health.js" SCRIPT,
    "kinds.js" SCRIPT,
    "route.js" SCRIPT,
    "settings.js" SCRIPT,
    "parts.js" SCRIPT,
    "dialog.js" SCRIPT,
    "panels/log.js" SCRIPT,
    "panels/shell.js" SCRIPT,
    "panels/yaml.js" SCRIPT,
    "views/cluster.js" SCRIPT,
    "views/workloads.js" SCRIPT,
    "views/workload.js" SCRIPT,
    "views/pods.js" SCRIPT,
    "views/pod.js" SCRIPT,
    "views/nodes.js" SCRIPT,
    "views/events.js" SCRIPT,
    "views/signin.js" SCRIPT,
    "vendor/xterm.mjs" SCRIPT,
    "vendor/addon-fit.mjs" SCRIPT,
    "vendor/xterm.css" STYLE,
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Every file of the folder that a browser could ask for.
    fn in_folder(folder: &Path, below: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("the page's folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().expect("a type").is_dir() {
                in_folder(&entry.path(), &format!("{below}{name}/"), found);
            } else if !name.contains("LICENSE") && !name.ends_with(".md") {
                found.insert(format!("{below}{name}"));
            }
        }
    }

    #[test]
    fn every_file_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let mut found = BTreeSet::new();
        in_folder(&folder, "", &mut found);
        let served: BTreeSet<String> = FILES.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(served, found);
    }

    #[test]
    fn what_is_imported_is_there() {
        for file in FILES.iter().filter(|file| file.content_type == SCRIPT) {
            let text = std::str::from_utf8(file.bytes).expect("UTF-8");
            let own = !file.path.starts_with("vendor/");
            for line in text
                .lines()
                .filter(|line| own && line.starts_with("import "))
            {
                let from = line.split('"').nth(1).expect("a quoted path");
                let mut path: Vec<&str> = file.path.split('/').collect();
                path.pop();
                for part in from.split('/') {
                    match part {
                        "." => (),
                        ".." => drop(path.pop()),
                        part => path.push(part),
                    }
                }
                let path = path.join("/");
                assert!(super::file(&path).is_some(), "{} imports {path}", file.path);
            }
        }
    }

    /// What an object says must never become markup or script.
    #[test]
    fn no_text_becomes_markup() {
        for file in FILES
            .iter()
            .filter(|file| !file.path.starts_with("vendor/"))
        {
            let text = std::str::from_utf8(file.bytes).expect("UTF-8");
            for sink in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "srcdoc",
            ] {
                assert!(!text.contains(sink), "{} uses {sink}", file.path);
            }
            let inline = ["onclick=", "<style", "style=\"", "javascript:"];
            if file.content_type == HTML {
                assert!(
                    inline.iter().all(|it| !text.contains(it)),
                    "{} has inline script or style, which the policy forbids",
                    file.path
                );
            }
        }
    }
}
