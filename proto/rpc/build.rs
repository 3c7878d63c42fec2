//! Compiles every file of `proto/` with protox, so that no `protoc` is needed. gRPC code is generated for the files with a
//! service, and only with the feature `grpc`.

use protox::prost_reflect::prost_types::FileDescriptorSet;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<PathBuf> = std::fs::read_dir("proto")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "proto")
    });
    files.sort();
    let descriptors = protox::compile(&files, ["proto"])?;
    std::fs::write(
        PathBuf::from(std::env::var("OUT_DIR")?).join("methods.rs"),
        methods(&descriptors),
    )?;
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .bytes(".")
        .codec_path("crate::codec::SizedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// A list of all methods as an expression.
fn methods(descriptors: &FileDescriptorSet) -> String {
    let mut list = String::from("&[\n");
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                list += &format!(
                    "Method {{ service: \"{}.{}\", name: \"{}\", client_streams: {}, server_streams: {} }},\n",
                    file.package(),
                    service.name(),
                    method.name(),
                    method.client_streaming(),
                    method.server_streaming(),
                );
            }
        }
    }
    list + "]"
}
