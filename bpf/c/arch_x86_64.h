/* arch_x86_64.h - registers of a system call on x86-64, native and 32-bit. */
#define TS_COMPAT 2
#define SYSCALL_EXECVE(compat) ((compat) ? 11 : 59)
#define SYSCALL_FINIT_MODULE(compat) ((compat) ? 350 : 313)
#define SYSCALL_EXECVEAT(compat) ((compat) ? 358 : 322)
#define SYSCALL_INOTIFY_ADD_WATCH(compat) ((compat) ? 292 : 254)
/* Argument n of a kernel function, valid at its entry. */
#define FUNCTION_ARGUMENT(regs, n) LOAD_BY_TYPE(u64, "u64", regs, FUNCTION_ARGUMENT_##n)
#define FUNCTION_ARGUMENT_0 KERNEL_pt_regs_di
#define FUNCTION_ARGUMENT_1 KERNEL_pt_regs_si
#define FUNCTION_ARGUMENT_2 KERNEL_pt_regs_dx
#define FUNCTION_ARGUMENT_3 KERNEL_pt_regs_cx
#define FUNCTION_ARGUMENT_4 KERNEL_pt_regs_r8
#define FUNCTION_ARGUMENT_5 KERNEL_pt_regs_r9
#define INSTRUCTION_POINTER(regs) LOAD_REGISTER(regs, KERNEL_pt_regs_ip)
/* The kernel dispatches on an int: do_syscall_64() drops the upper half of rax. */
#define SYSCALL_NUMBER(regs) ((s64)(s32)LOAD_REGISTER4(regs, KERNEL_pt_regs_orig_ax))
/* The whole register: seccomp's rollback (syscall_rollback()) returns it as the result. */
#define SYSCALL_REGISTER(regs) ((s64)LOAD_REGISTER(regs, KERNEL_pt_regs_orig_ax))
/* x32 ABI: numbers below X32_ONLY are the 64-bit calls, the others take 32-bit structs. */
#define X32_BIT 0x40000000
#define X32_ONLY 512
#define SYSCALL_SOCKETCALL 102
#define SYSCALL_IPC 117
#define SYSCALL_OLD_SELECT 82
#define SYSCALL_OLD_MMAP 90
#define SYSCALL_IS_COMPAT(task) (LOAD4(task, KERNEL_task_struct_thread_info_status) & TS_COMPAT)

#define REGISTERS(a, regs)                                                                     \
	do {                                                                                           \
		a[0] = LOAD_REGISTER(regs, KERNEL_pt_regs_di);                                                 \
		a[1] = LOAD_REGISTER(regs, KERNEL_pt_regs_si);                                                 \
		a[2] = LOAD_REGISTER(regs, KERNEL_pt_regs_dx);                                                 \
		a[3] = LOAD_REGISTER(regs, KERNEL_pt_regs_r10);                                                \
		a[4] = LOAD_REGISTER(regs, KERNEL_pt_regs_r8);                                                 \
		a[5] = LOAD_REGISTER(regs, KERNEL_pt_regs_r9);                                                 \
	} while (0)
/* `int $0x80` and 32-bit programs use other registers, 32 bits of each. cs alone does not identify them. */
#define REGISTERS_COMPAT(a, regs)                                                              \
	do {                                                                                           \
		a[0] = (u32)LOAD_REGISTER(regs, KERNEL_pt_regs_bx);                                            \
		a[1] = (u32)LOAD_REGISTER(regs, KERNEL_pt_regs_cx);                                            \
		a[2] = (u32)LOAD_REGISTER(regs, KERNEL_pt_regs_dx);                                            \
		a[3] = (u32)LOAD_REGISTER(regs, KERNEL_pt_regs_si);                                            \
		a[4] = (u32)LOAD_REGISTER(regs, KERNEL_pt_regs_di);                                            \
		a[5] = (u32)LOAD_REGISTER(regs, KERNEL_pt_regs_bp);                                            \
	} while (0)
