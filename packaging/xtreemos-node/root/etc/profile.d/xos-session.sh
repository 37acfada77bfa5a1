# XtreemOS: a grid session's own ssh-agent, where the user has forwarded none.
if [ -n "${XOS_SSH_AGENT-}" ] && [ -z "${SSH_AUTH_SOCK-}" ]; then
	export SSH_AUTH_SOCK="$XOS_SSH_AGENT"
fi
# Where a VO wants a user's signature before this machine may act for her, her
# forwarded ssh-agent gives it as she logs in; her home is here then.
if [ "${XOS_CONSENT-}" = wanted ]; then
	unset XOS_CONSENT
	xos delegate && cd "$HOME"
fi
