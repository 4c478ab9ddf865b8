/*
 * identity.c - changes of credentials and namespaces, and the host's namespaces. The old values are
 * read at the entry of the calls that may change them, the new values at the exit. An event is
 * emitted only if they differ.
 */
static __always_inline void read_credentials(struct credentials *c, u64 cred)
{
	c->uid = KREAD(u32, cred + KERNEL_cred_uid);
	c->gid = KREAD(u32, cred + KERNEL_cred_gid);
	c->suid = KREAD(u32, cred + KERNEL_cred_suid);
	c->sgid = KREAD(u32, cred + KERNEL_cred_sgid);
	c->euid = KREAD(u32, cred + KERNEL_cred_euid);
	c->egid = KREAD(u32, cred + KERNEL_cred_egid);
	c->fsuid = KREAD(u32, cred + KERNEL_cred_fsuid);
	c->fsgid = KREAD(u32, cred + KERNEL_cred_fsgid);
	c->user_namespace = KREAD(u32, KREAD(u64, cred + KERNEL_cred_user_ns) + KERNEL_user_namespace_ns_inum);
	c->secure_bits = KREAD(u32, cred + KERNEL_cred_securebits);
	c->cap_inheritable = KREAD(u64, cred + KERNEL_cred_cap_inheritable);
	c->cap_permitted = KREAD(u64, cred + KERNEL_cred_cap_permitted);
	c->cap_effective = KREAD(u64, cred + KERNEL_cred_cap_effective);
	c->cap_bounding = KREAD(u64, cred + KERNEL_cred_cap_bset);
	c->cap_ambient = KREAD(u64, cred + KERNEL_cred_cap_ambient);
}

static __always_inline void read_namespaces(struct namespaces *n, u64 proxy)
{
	n->mnt = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_mnt_ns) + KERNEL_mnt_namespace_ns_inum);
	n->pid = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_pid_ns_for_children) + KERNEL_pid_namespace_ns_inum);
	n->uts = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_uts_ns) + KERNEL_uts_namespace_ns_inum);
	n->ipc = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_ipc_ns) + KERNEL_ipc_namespace_ns_inum);
	n->net = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_net_ns) + KERNEL_net_ns_inum);
	n->cgroup = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_cgroup_ns) + KERNEL_cgroup_namespace_ns_inum);
}

static __always_inline void blob_credentials(struct writer *w, u32 arg, const struct credentials *c)
{
	struct blob *b = blob_begin(w, arg, sizeof(struct blob) + sizeof(*c));
	if (!b)
		return;
	bpf_probe_read_kernel(b + 1, sizeof(*c), c);
	blob_end(w, b, sizeof(*c), BLOB_OK | SOURCE_KERNEL);
}

#ifdef EVENT_switch_task_ns
/* Report each namespace that changed, 0 for the others. */
static __always_inline void namespaces_event(void *ctx, const struct subject *s, u32 pid, const struct namespaces *was,
					     const struct namespaces *is)
{
	struct writer w;
	if (!record_begin(ctx, &w, s, URGENT, EVENT_switch_task_ns, 7, 0))
		return;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = pid;
	a[0] = is->mnt == was->mnt ? 0 : is->mnt;
	a[1] = is->pid == was->pid ? 0 : is->pid;
	a[2] = is->uts == was->uts ? 0 : is->uts;
	a[3] = is->ipc == was->ipc ? 0 : is->ipc;
	a[4] = is->net == was->net ? 0 : is->net;
	a[5] = is->cgroup == was->cgroup ? 0 : is->cgroup;
	record_end(ctx, &w);
}
#endif

#ifdef WANT_BEFORE
/* Entry of the setuid family, capset, setns and unshare. */
int enter_identity(struct bpf_raw_tracepoint_args *ctx)
{
	struct subject s;
	u64 task = current_task_btf(), pid_tgid = bpf_get_current_pid_tgid();
	u32 zero = 0;
	struct identity *i = identity_scratch.lookup(&zero);
	if (!i || !in_scope(&s, task))
		return 0;
	read_credentials(&i->credentials, LOAD8(task, KERNEL_task_struct_cred));
	read_namespaces(&i->namespaces, LOAD8(task, KERNEL_task_struct_nsproxy));
	identities.update(&pid_tgid, i);
	return 0;
}

int on_identity(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 zero = 0;
	struct identity *was = identities.lookup(&pid_tgid), *is = identity_scratch.lookup(&zero);
	if (!was || !is || !exit_context_cold(ctx, &o))
		return 0;
	read_credentials(&is->credentials, LOAD8(o.s.task, KERNEL_task_struct_cred));
	read_namespaces(&is->namespaces, LOAD8(o.s.task, KERNEL_task_struct_nsproxy));
#ifdef EVENT_commit_creds
	bool same = true;
	u64 *x = (u64 *)&was->credentials, *y = (u64 *)&is->credentials;
#pragma unroll
	for (int i = 0; i < sizeof(struct credentials) / 8; i++)
		same &= x[i] == y[i];
	if (!same && record_begin(ctx, &w, &o.s, URGENT, EVENT_commit_creds, 3, 256)) {
		u64 *a = (u64 *)(w.head + 1);
		a[1] = SYSCALL_NUMBER(current_registers());
		blob_credentials(&w, 0, &was->credentials);
		blob_credentials(&w, 1, &is->credentials);
		record_end(ctx, &w);
	}
#endif
#ifdef EVENT_switch_task_ns
	struct namespaces *p = &was->namespaces, *q = &is->namespaces;
	if (p->mnt != q->mnt || p->pid != q->pid || p->uts != q->uts || p->ipc != q->ipc || p->net != q->net ||
	    p->cgroup != q->cgroup)
		namespaces_event(ctx, &o.s, o.s.tid, p, q);
#endif
	identities.delete(&pid_tgid);
	return 0;
}
#endif

#ifdef EVENT_cap_capable
int on_cap_capable(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	u64 task = current_task_btf();
	if (!event_begin(ctx, &w, false, EVENT_cap_capable, 2, 0))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->retval = CAPABLE_RESULT(ctx);
	w.head->arg0 = CAPABLE_CAPABILITY(ctx);
	a[0] = SYSCALL_NUMBER(registers_of(task));
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_init_namespaces
#define ANCESTORS 32
/* Report the namespaces of the host's first process. The loader, a descendant of it, runs this program. */
int tell_namespaces(struct bpf_raw_tracepoint_args *ctx)
{
	struct subject s;
	struct writer w;
	u64 task = current_task_btf();
	in_scope(&s, task);
	in_all_policies(&s);
	for (int i = 0; i < ANCESTORS && KREAD(u32, task + KERNEL_task_struct_tgid) != 1; i++)
		task = KREAD(u64, task + KERNEL_task_struct_real_parent);
	STAY;
	if (!record_begin(ctx, &w, &s, URGENT, EVENT_init_namespaces, 10, 0)) {
		LEAVE;
		return 0;
	}
	u64 *a = (u64 *)(w.head + 1);
	u64 proxy = KREAD(u64, task + KERNEL_task_struct_nsproxy), cred = KREAD(u64, task + KERNEL_task_struct_cred);
	w.head->arg0 = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_cgroup_ns) + KERNEL_cgroup_namespace_ns_inum);
	a[0] = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_ipc_ns) + KERNEL_ipc_namespace_ns_inum);
	a[1] = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_mnt_ns) + KERNEL_mnt_namespace_ns_inum);
	a[2] = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_net_ns) + KERNEL_net_ns_inum);
	a[3] = a[4] = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_pid_ns_for_children) + KERNEL_pid_namespace_ns_inum);
	a[5] = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_time_ns) + KERNEL_time_namespace_ns_inum);
	a[6] = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_time_ns_for_children) + KERNEL_time_namespace_ns_inum);
	a[7] = KREAD(u32, KREAD(u64, cred + KERNEL_cred_user_ns) + KERNEL_user_namespace_ns_inum);
	a[8] = KREAD(u32, KREAD(u64, proxy + KERNEL_nsproxy_uts_ns) + KERNEL_uts_namespace_ns_inum);
	record_end(ctx, &w);
	LEAVE;
	return 0;
}
#endif
