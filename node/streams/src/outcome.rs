//! How a command ended, as the Status that the error channel carries.
//! The shape is that of the kubelet: `Success`, or `Failure` whose reason `NonZeroExitCode` and cause `ExitCode` give
//! kubectl its own exit code.

use bytes::Bytes;
use serde_json::json;

/// How a remote command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended with this exit code; 0 is success.
    Exited(i32),
    /// The process could not be started, or what became of it is unknown: a message for the user.
    Failed(String),
}

impl Outcome {
    /// The Status in JSON.
    pub(crate) fn status(&self) -> Bytes {
        let status = match self {
            Outcome::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Outcome::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Outcome::Failed(message) => json!({
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "InternalError",
                "details": {"causes": [{"message": message}]},
                "code": 500,
            }),
        };
        Bytes::from(status.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_a_bare_status() {
        assert_eq!(
            Outcome::Exited(0).status(),
            r#"{"metadata":{},"status":"Success"}"#
        );
    }

    #[test]
    fn exit_code_is_a_cause() {
        let status: serde_json::Value =
            serde_json::from_slice(&Outcome::Exited(42).status()).expect("JSON");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "42");
    }

    #[test]
    fn failure_keeps_its_message() {
        let status: serde_json::Value =
            serde_json::from_slice(&Outcome::Failed("no \"sh\"".into()).status()).expect("JSON");
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["message"], "no \"sh\"");
    }
}
