//! The functions of the library: those of the language and those that Kubernetes adds.

use crate::Error;
use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{CallExpr, Expr};
use kube_cel::cel::{Context, ExecutionError, IdedExpr, Value as Cel};

thread_local! {
    /// Holds functions alone; made once a thread, since a context cannot be shared.
    static FUNCTIONS: Context<'static> = Context::default().with_all();
}

/// Prefixes of functions that are no variables: `math.least(..)`.
pub const PLACES: [&str; 10] = [
    "math",
    "sets",
    "base64",
    "lists",
    "strings",
    "jsonpatch",
    "format",
    "ip",
    "optional",
    "cel",
];

/// All names of functions that are known, whosoever's they are.
pub const NAMES: &[&str] = &[
    "abs",
    "add",
    "all",
    "allowed",
    "asApproximateFloat",
    "asInteger",
    "base64",
    "bind",
    "bitAnd",
    "bitNot",
    "bitOr",
    "bitShiftLeft",
    "bitShiftRight",
    "bitXor",
    "bool",
    "byte",
    "bytes",
    "ceil",
    "charAt",
    "check",
    "cidr",
    "compareTo",
    "contains",
    "containsCIDR",
    "containsIP",
    "date",
    "datetime",
    "decode",
    "denied",
    "distinct",
    "dns1035Label",
    "dns1035LabelPrefix",
    "dns1123Label",
    "dns1123LabelPrefix",
    "dns1123Subdomain",
    "dns1123SubdomainPrefix",
    "double",
    "duration",
    "dyn",
    "encode",
    "endsWith",
    "equivalent",
    "error",
    "errored",
    "escapeKey",
    "exists",
    "existsOne",
    "exists_one",
    "family",
    "filter",
    "find",
    "findAll",
    "first",
    "flatten",
    "floor",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getQuery",
    "getScheme",
    "getSeconds",
    "greatest",
    "group",
    "has",
    "hasValue",
    "indexOf",
    "int",
    "intersects",
    "ip",
    "isCIDR",
    "isCIDRv4",
    "isCIDRv6",
    "isCanonical",
    "isFinite",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isIPv4",
    "isIPv6",
    "isInf",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isNaN",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "isUnspecified",
    "join",
    "labelValue",
    "last",
    "lastIndexOf",
    "least",
    "lowerAscii",
    "major",
    "map",
    "masked",
    "matches",
    "max",
    "min",
    "minor",
    "name",
    "named",
    "namespace",
    "none",
    "of",
    "ofNonZeroValue",
    "optFlatMap",
    "optMap",
    "or",
    "orValue",
    "patch",
    "path",
    "prefixLength",
    "qualifiedName",
    "quantity",
    "quote",
    "range",
    "reason",
    "replace",
    "resource",
    "reverse",
    "round",
    "semver",
    "serviceAccount",
    "sign",
    "size",
    "slice",
    "sort",
    "split",
    "sqrt",
    "startsWith",
    "string",
    "sub",
    "subresource",
    "substring",
    "sum",
    "timestamp",
    "transformList",
    "transformMap",
    "trim",
    "trunc",
    "type",
    "uint",
    "upperAscii",
    "uri",
    "url",
    "uuid",
    "validate",
    "value",
];

/// Calls a function: `place.name(args)`, `target.name(args)` or `name(args)`.
pub fn call(
    name: &str,
    place: Option<&str>,
    target: Option<Cel>,
    args: Vec<Cel>,
) -> Result<Cel, Error> {
    FUNCTIONS.with(|functions| {
        let mut scope = functions.new_inner_scope();
        let mut named = |name: String, value: Cel| {
            scope.add_variable_from_value(name.clone(), value);
            ident(name)
        };
        let args = args.into_iter().enumerate();
        let args = args
            .map(|(at, value)| named(format!("@{at}"), value))
            .collect();
        let target = match (place, target) {
            (Some(place), _) => Some(Box::new(ident(place.to_owned()))),
            (None, Some(value)) => Some(Box::new(named("@target".to_owned(), value))),
            (None, None) => None,
        };
        let call = IdedExpr {
            id: 0,
            expr: Expr::Call(CallExpr {
                func_name: name.to_owned(),
                target,
                args,
            }),
        };
        Cel::resolve(&call, &scope).map_err(told)
    })
}

fn ident(name: String) -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Ident(name),
    }
}

/// The library's error in Kubernetes' words.
fn told(error: ExecutionError) -> Error {
    match error {
        ExecutionError::FunctionError { message, .. } => Error::Other(message),
        ExecutionError::NoSuchKey(key) => Error::no_key(&key),
        ExecutionError::UndeclaredReference(name) => Error::Other(format!(
            "undeclared reference to '{name}' (in container '')"
        )),
        ExecutionError::Overflow(..) => Error::Other("integer overflow".into()),
        ExecutionError::DivisionByZero(_) => Error::Other("division by zero".into()),
        ExecutionError::RemainderByZero(_) => Error::Other("modulus by zero".into()),
        _ => Error::no_overload(),
    }
}
