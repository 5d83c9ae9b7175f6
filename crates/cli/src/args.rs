//! The command line: one definition for parsing, help and completion.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::printer::Format;

/// The framework for internal platforms, in one binary
#[derive(Debug, Parser)]
#[command(name = "kratix", version, about, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Log more: -v shows what changes, -vv what is decided, -vvv everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the path of one request, from kubectl apply to a synced worker
    #[command(after_help = "Example:\n  kratix demo --keep")]
    Demo(Demo),
    /// Start the embedded platform on this machine
    #[command(after_help = "Example:\n  kratix up --detach && export KUBECONFIG=$(kratix status --kubeconfig-path)")]
    Up(Up),
    /// Stop the embedded platform
    #[command(after_help = "Example:\n  kratix down")]
    Down(Down),
    /// Tell whether the embedded platform is running, and where
    #[command(after_help = "Example:\n  kratix status -o json")]
    Status(Status),
    /// Manage the images that pipelines can use
    Image(Image),
    /// Run one of Kratix's own containers of a workflow pod
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Pipeline(Pipeline),
}

/// Where the embedded platform keeps its data.
#[derive(Clone, Debug, Args)]
pub(crate) struct DataDir {
    /// Directory that holds everything: objects, Git repository, images
    #[arg(long, value_name = "DIR", env = "KRATIX_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDir {
    pub(crate) fn path(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(kratix_platform::data_dir::default_root)
    }
}

/// What runs the containers of pipelines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// The best this machine offers
    #[default]
    Auto,
    /// Linux namespaces, nothing to install
    Native,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Address of the platform's API server
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6443")]
    pub(crate) listen: SocketAddr,
    /// Also write the kubeconfig to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Use the API server of this kubeconfig's current context instead of the embedded one
    ///
    /// Jobs and Pods run on this machine, so nothing else may run them: an API server without kubelets and without the
    /// Job controller, as tests of controllers have it.
    #[arg(long, value_name = "KUBECONFIG", hide_short_help = true)]
    pub(crate) api_server: Option<PathBuf>,
    /// What runs the containers of pipelines
    #[arg(long, value_enum, default_value_t)]
    pub(crate) runtime: Runtime,
    /// Return as soon as the platform is ready and leave it running
    #[arg(long)]
    pub(crate) detach: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// Print only the path of the kubeconfig
    #[arg(long)]
    pub(crate) kubeconfig_path: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the platform running afterwards
    #[arg(long)]
    pub(crate) keep: bool,
    /// Directory for the data; a temporary one unless given
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Make a docker or OCI archive available to pipelines
    #[command(
        after_help = "Example:\n  docker save ghcr.io/example/pipeline:v1 -o image.tar && kratix image load image.tar"
    )]
    Load(Load),
    /// List the images that pipelines can use
    #[command(after_help = "Example:\n  kratix image list")]
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The archive
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Name for the image instead of those in the archive
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Pipeline {
    /// Program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}
