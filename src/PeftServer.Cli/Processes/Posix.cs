using System.ComponentModel;
using System.Runtime.InteropServices;

namespace PeftServer.Cli.Processes;

/// <summary>The few calls of POSIX that .NET does not offer.</summary>
internal static partial class Posix
{
    public const int SIGINT = 2;
    public const int SIGQUIT = 3;
    public const int SIGKILL = 9;
    public const int SIGTERM = 15;

    /// <summary>Sends a signal. False when the process is gone.</summary>
    public static bool Kill(int processId, int signal) => kill(processId, signal) == 0;

    /// <summary>
    /// Leaves the terminal's process group, so that Ctrl-C reaches the parent alone and the parent decides the order
    /// in which things end.
    /// </summary>
    public static void StartSession() => _ = setsid(); // fails for a group leader, who has left already

    /// <summary>Gives <paramref name="path"/> to <paramref name="user"/>.</summary>
    public static void ChangeOwner(string path, UnixUser user)
    {
        if (chown(path, user.Uid, user.Gid) != 0)
        {
            throw new Win32Exception(Marshal.GetLastPInvokeError());
        }
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int kill(int pid, int signal);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setsid();

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int chown(string path, uint owner, uint group);
}
