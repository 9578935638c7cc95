using System.Net;
using System.Net.Sockets;

namespace PeftServer.Cli.Up;

/// <summary>Ports of the loopback interface.</summary>
internal static class Ports
{
    /// <summary>A port that nothing listens on. Another process may take it before it is used.</summary>
    public static int Free()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }

    public static bool IsFree(int port) => Problem(port) is null;

    /// <summary>Throws a <see cref="CommandException"/> that names <paramref name="option"/> when nobody can listen there.</summary>
    public static void Require(int port, string option)
    {
        if (Problem(port) is { } problem)
        {
            throw new CommandException(
                $"Port {port} {problem}. Choose another with {option} N, or {option} 0 for a free one.", ExitCode.Environment);
        }
    }

    private static string? Problem(int port)
    {
        try
        {
            using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Loopback, port));
            socket.Listen();
            return null;
        }
        catch (SocketException error) when (error.SocketErrorCode == SocketError.AddressAlreadyInUse)
        {
            return "of 127.0.0.1 is taken by another program";
        }
        catch (SocketException error)
        {
            return $"of 127.0.0.1 cannot be used ({error.Message})";
        }
    }
}
