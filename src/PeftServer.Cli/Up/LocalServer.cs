using PeftServer.Cli.Postgres;
using PeftServer.Cli.Processes;

namespace PeftServer.Cli.Up;

/// <summary>The whole server on this machine: a private PostgreSQL, api, worker and inference, each a child of this process.</summary>
internal sealed class LocalServer : IAsyncDisposable
{
    private readonly DataDirectory _data;
    private readonly StatusLines _status;
    private readonly List<SupervisedProcess> _hosts = [];
    private PrivatePostgres? _postgres;

    private LocalServer(DataDirectory data, StatusLines status)
    {
        _data = data;
        _status = status;
    }

    public static async Task<LocalServer> StartAsync(UpOptions options, StatusLines status, CancellationToken cancellationToken)
    {
        var server = new LocalServer(DataDirectory.Open(options.Data), status);
        try
        {
            await server.StartAsync(options, cancellationToken);
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    private async Task StartAsync(UpOptions options, CancellationToken cancellationToken)
    {
        _status.Line("data", _data.Root);
        var settings = Settings.Read(options.Set);
        _postgres = await PrivatePostgres.StartAsync(_data, settings["Postgres:BinPath"], _status, cancellationToken);
        _status.Line("postgres", _postgres.Description);
    }

    public static async Task RunAsync(CancellationToken ct)
    {
        try { await Task.Delay(Timeout.Infinite, ct); } catch (OperationCanceledException) { }
    }

    public async ValueTask DisposeAsync()
    {
        if (_postgres is not null) { await _postgres.DisposeAsync(); }
        _data.Dispose();
    }
}
