/*
 * tracepoints.h - arguments that tracepoints pass to programs. A raw tracepoint passes its own
 * arguments. Where programs at raw tracepoints can be preempted, they attach to the perf event of
 * the same tracepoint instead (decisions/0045). That passes the record described by `format` in
 * tracefs: RECORD_x_y is the offset of y in the record of x. If a record has only a number in place
 * of a pointer, a program that needs the object looks it up.
 */
#ifdef BY_PERF
#define RECORDED(ctx, type, place) (*(type *)((void *)(ctx) + (place)))
#define RECORDED_TEXT(ctx, place) ((u64)(ctx) + (u16)RECORDED(ctx, u32, place)) /* __data_loc: length in the upper half */
#define CALL_NUMBER(ctx) RECORDED(ctx, u64, RECORD_sys_enter_id)
#define CALL_RESULT(ctx) RECORDED(ctx, u64, RECORD_sys_exit_ret)
#define FORK_CHILD(ctx, task) task_of_host(task, RECORDED(ctx, u32, RECORD_sched_process_fork_child_pid))
#define EXEC_BINPRM(ctx) kept_binprm()
#define EXEC_FILENAME(ctx, binprm) RECORDED_TEXT(ctx, RECORD_sched_process_exec_filename)
#define RENAME_OLD(ctx) ((u64)(ctx) + RECORD_task_rename_oldcomm)
#define RENAME_NEW(ctx) ((u64)(ctx) + RECORD_task_rename_newcomm)
#define CAPABLE_CAPABILITY(ctx) RECORDED(ctx, u32, RECORD_cap_capable_cap)
#define CAPABLE_RESULT(ctx) RECORDED(ctx, s32, RECORD_cap_capable_ret)
#define RING_FD(ctx) RECORDED(ctx, s32, RECORD_io_uring_create_fd)
#define RING_SUBMISSIONS(ctx) RECORDED(ctx, u32, RECORD_io_uring_create_sq_entries)
#define RING_COMPLETIONS(ctx) RECORDED(ctx, u32, RECORD_io_uring_create_cq_entries)
#define RING_FLAGS(ctx) RECORDED(ctx, u32, RECORD_io_uring_create_flags)
#define RING_REQUEST(ctx) RECORDED(ctx, u64, RECORD_io_uring_submit_req_req)
#define MODULE(ctx) 0
#define MODULE_NAME(ctx, hook) RECORDED_TEXT(ctx, RECORD_##hook##_name)
#else
#define CALL_NUMBER(ctx) ((ctx)->args[1])
#define CALL_RESULT(ctx) ((ctx)->args[1])
#define FORK_CHILD(ctx, task) ((ctx)->args[1])
#define EXEC_BINPRM(ctx) ((ctx)->args[2])
#define EXEC_FILENAME(ctx, binprm) KREAD(u64, (binprm) + KERNEL_linux_binprm_filename)
#define RENAME_OLD(ctx) ((ctx)->args[0] + KERNEL_task_struct_comm)
#define RENAME_NEW(ctx) ((ctx)->args[1])
#define CAPABLE_CAPABILITY(ctx) ((ctx)->args[3])
#define CAPABLE_RESULT(ctx) ((s32)(ctx)->args[4])
#define RING_FD(ctx) ((ctx)->args[0])
#define RING_SUBMISSIONS(ctx) ((ctx)->args[2])
#define RING_COMPLETIONS(ctx) ((ctx)->args[3])
#define RING_FLAGS(ctx) ((ctx)->args[4])
#define RING_REQUEST(ctx) ((ctx)->args[0])
#define MODULE(ctx) ((ctx)->args[0])
#define MODULE_NAME(ctx, hook) ((ctx)->args[0] + KERNEL_module_name)
#endif

/*
 * Programs that stay at raw tracepoints. sched_switch runs with interrupts off, and so do the
 * cgroup tracepoints, except on real-time kernels. The cgroup programs and those that user space
 * runs disable preemption while they use per-CPU state. No two of them run at a time: the kernel
 * holds a lock, and user space runs one after the other on a CPU.
 */
#if defined(BY_PERF) && defined(KERNEL_preempt_disable)
#define STAY ((void (*)(void))(KERNEL_FUNCTION | KERNEL_preempt_disable))()
#define LEAVE ((void (*)(void))(KERNEL_FUNCTION | KERNEL_preempt_enable))()
#else
#define STAY
#define LEAVE
#endif
