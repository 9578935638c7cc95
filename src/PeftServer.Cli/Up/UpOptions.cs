namespace PeftServer.Cli.Up;

/// <summary>What <c>up</c> and <c>demo</c> start.</summary>
/// <param name="Data">The data directory.</param>
/// <param name="Port">Of the api; null: 8080, 0: a free one.</param>
/// <param name="AdminPort">Of the admin listener; null: 8081 or a free one, 0: a free one.</param>
/// <param name="Set">Settings from the command line.</param>
internal sealed record UpOptions(string Data, int? Port, int? AdminPort, IReadOnlyDictionary<string, string?> Set)
{
    private const int DefaultPort = 8080;
    private const int DefaultAdminPort = 8081;

    /// <summary>The api's port, or a <see cref="CommandException"/> when it is taken.</summary>
    public int ChoosePort() => Choose(Port ?? DefaultPort, "--port");

    public int ChooseAdminPort() => AdminPort is null && !Ports.IsFree(DefaultAdminPort)
        ? Ports.Free()
        : Choose(AdminPort ?? DefaultAdminPort, "--admin-port");

    private static int Choose(int port, string option)
    {
        if (port == 0)
        {
            return Ports.Free();
        }
        Ports.Require(port, option);
        return port;
    }
}
