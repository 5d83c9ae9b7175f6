//! A short list of system calls that no container needs and that have opened holes before: they answer "not permitted".
//!
//! The container has no capability and a user namespace of its own, so most of these would fail anyway. The list keeps
//! kernel code away from untrusted programs that they could otherwise reach by making further namespaces.

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, c_long, sock_filter};

use super::Failure;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

const DENIED: &[c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_lookup_dcookie,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
];

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const NOT_IMPLEMENTED: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
/// System calls of the x32 interface carry this bit; their numbers would slip past the list.
const X32_BIT: u32 = 0x4000_0000;

const fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// Builds the filter program.
fn program() -> Vec<sock_filter> {
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    const FIRST_ARGUMENT_LOW: u32 = 16;
    let load = BPF_LD | BPF_W | BPF_ABS;
    let equal = BPF_JMP | BPF_JEQ | BPF_K;
    let refuse = |answer| statement(BPF_RET | BPF_K, answer);
    let mut program = vec![
        statement(load, ARCH),
        jump(equal, ARCHITECTURE, 1, 0),
        refuse(NOT_IMPLEMENTED), // other interfaces of the kernel number their calls differently
        statement(load, NUMBER),
        jump(BPF_JMP | BPF_JSET | BPF_K, X32_BIT, 0, 1),
        refuse(NOT_IMPLEMENTED),
        // Its flags lie in memory that a filter cannot read; C libraries then fall back to clone.
        jump(equal, libc::SYS_clone3 as u32, 0, 1),
        refuse(NOT_IMPLEMENTED),
    ];
    for number in DENIED {
        program.push(jump(equal, *number as u32, 0, 1));
        program.push(refuse(NOT_PERMITTED));
    }
    program.extend([
        jump(equal, libc::SYS_clone as u32, 0, 3),
        statement(load, FIRST_ARGUMENT_LOW),
        jump(BPF_JMP | BPF_JSET | BPF_K, libc::CLONE_NEWUSER as u32, 0, 1),
        refuse(NOT_PERMITTED),
        refuse(ALLOW),
    ]);
    program
}

/// Puts the filter on this thread and all that come from it; needs "no new privileges".
pub(super) fn install() -> Result<(), Failure> {
    let mut filters = program();
    let length = u16::try_from(filters.len()).expect("the program is short");
    let program = libc::sock_fprog { len: length, filter: filters.as_mut_ptr() };
    #[expect(unsafe_code, reason = "installing a filter has no wrapper in the crates used")]
    // SAFETY: the program and its instructions live until the call returns; the kernel copies them.
    let outcome = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::c_ulong::from(libc::SECCOMP_MODE_FILTER), &raw const program)
    };
    match outcome {
        0 => Ok(()),
        _ => {
            let error = std::io::Error::last_os_error();
            // A kernel built without filters still has every other wall standing.
            if error.raw_os_error() == Some(libc::EINVAL) {
                Ok(())
            } else {
                Err(Failure::new("filter system calls", error))
            }
        }
    }
}
