using System.Diagnostics;
using System.Security.Cryptography;
using PeftServer.Cli.Postgres;
using PeftServer.Cli.Processes;
using PeftServer.Core.Data;

namespace PeftServer.Cli.Up;

/// <summary>The whole server on this machine: a private PostgreSQL, api, worker and inference, each a child of this process.</summary>
internal sealed class LocalServer : IAsyncDisposable
{
    /// <summary>Children that have not ended by then are killed; PostgreSQL comes after them and takes up to 5 s.</summary>
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(4.5);

    private readonly DataDirectory _data;
    private readonly StatusLines _status;
    private readonly Dictionary<string, string> _environment = [];
    private readonly List<SupervisedProcess> _hosts = [];
    private readonly HttpClient _http = new() { Timeout = TimeSpan.FromSeconds(5) };
    private PrivatePostgres? _postgres;

    private LocalServer(DataDirectory data, UpOptions options, StatusLines status)
    {
        _data = data;
        _status = status;
        Api = new Uri($"http://127.0.0.1:{options.ChoosePort()}");
        Admin = new Uri($"http://127.0.0.1:{options.ChooseAdminPort()}");
    }

    /// <summary>The base address of the API, without /v1.</summary>
    public Uri Api { get; }

    public Uri Admin { get; }

    /// <summary>How long the start took.</summary>
    public TimeSpan StartTime { get; private set; }

    /// <summary>Starts all of it and returns once it answers. Throws <see cref="CommandException"/>; then nothing runs.</summary>
    public static async Task<LocalServer> StartAsync(UpOptions options, StatusLines status, CancellationToken cancellationToken)
    {
        var started = Stopwatch.GetTimestamp();
        RefuseOwnSettings(options);
        var data = DataDirectory.Open(options.Data);
        LocalServer? server = null;
        try
        {
            server = new LocalServer(data, options, status);
            await server.StartAsync(options, cancellationToken);
            server.StartTime = Stopwatch.GetElapsedTime(started);
            return server;
        }
        catch
        {
            await (server?.DisposeAsync() ?? ValueTask.CompletedTask);
            data.Dispose();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Task.WhenAll(_hosts.Select(host => host.StopAsync(Grace)));
        foreach (var host in _hosts)
        {
            await host.DisposeAsync();
        }
        if (_postgres is not null)
        {
            await _postgres.DisposeAsync();
        }
        _http.Dispose();
        _data.Dispose();
    }

    private async Task StartAsync(UpOptions options, CancellationToken cancellationToken)
    {
        _status.Line("data", _data.Root);
        var settings = Settings.Read(options.Set);
        _postgres = await PrivatePostgres.StartAsync(_data, settings["Postgres:BinPath"], _status, cancellationToken);
        await PeftDatabase.MigrateAsync(_postgres.ConnectionString, cancellationToken);
        _status.Line("postgres", _postgres.Description);

        if (string.IsNullOrEmpty(settings["Models:Root"]))
        {
            Samples.CopyModelsTo(_data.Models);
        }
        var inference = new Uri($"http://127.0.0.1:{Ports.Free()}");
        _environment["Data"] = _data.Root;
        _environment["ConnectionStrings__Postgres"] = _postgres.ConnectionString;
        _environment["Api__Url"] = Address(Api);
        _environment["Api__AdminUrl"] = Address(Admin);
        _environment["Inference__Url"] = Address(inference);
        _environment["Inference__InternalKey"] = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));
        // The first failure ends the waiting for the others.
        using var failed = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        Task[] starts =
        [
            StartHostAsync("inference", token => UntilAnswersAsync(new Uri(inference, "/healthz"), token), Address(inference), options, failed.Token),
            StartHostAsync("api", token => UntilAnswersAsync(new Uri(Api, "/readyz"), token), $"{Address(Api)} (Swagger UI: {Address(Api)}/swagger)", options, failed.Token),
            StartHostAsync("worker", UntilSettledAsync, $"devices: {settings["Worker:Devices"]}", options, failed.Token),
        ];
        try
        {
            await foreach (var start in Task.WhenEach(starts))
            {
                await start;
            }
        }
        catch
        {
            await failed.CancelAsync();
            await Task.WhenAll(starts).ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            throw;
        }
        _status.Line("dashboard", $"{Address(Admin)}/hangfire");
    }

    private async Task StartHostAsync(
        string name,
        Func<CancellationToken, Task> untilReady,
        string fact,
        UpOptions options,
        CancellationToken cancellationToken)
    {
        string[] set = [.. options.Set.SelectMany(setting => new[] { "--set", $"{setting.Key}={setting.Value}" })];
        var host = new SupervisedProcess(
            new ChildCommand(name, [name, "--supervised", .. set], _environment), Path.Combine(_data.Logs, $"{name}.log"), _status)
        {
            UntilReady = untilReady,
        };
        _hosts.Add(host);
        await host.StartAsync(cancellationToken);
        _status.Line(name, fact);
    }

    private async Task UntilAnswersAsync(Uri address, CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                using var answer = await _http.GetAsync(address, cancellationToken);
                if (answer.IsSuccessStatusCode)
                {
                    return;
                }
            }
            catch (Exception error) when (error is HttpRequestException or TaskCanceledException && !cancellationToken.IsCancellationRequested)
            {
                // it does not listen yet
            }
            await Task.Delay(100, cancellationToken);
        }
    }

    /// <summary>A worker has no port; one that cannot start says so and ends within its first second.</summary>
    private static Task UntilSettledAsync(CancellationToken cancellationToken) => Task.Delay(TimeSpan.FromSeconds(1.5), cancellationToken);

    private static string Address(Uri uri) => uri.GetLeftPart(UriPartial.Authority);

    private static void RefuseOwnSettings(UpOptions options)
    {
        string[] own = ["Data", "ConnectionStrings:Postgres", "Api:Url", "Api:AdminUrl", "Inference:Url", "Inference:AdvertisedUrl", "Inference:InternalKey"];
        if (own.FirstOrDefault(options.Set.ContainsKey) is { } key)
        {
            throw new CommandException(
                $"--set {key}: `up` decides this itself. It takes --data, --port and --admin-port; for more, run api, worker and inference one by one.",
                ExitCode.Usage);
        }
    }
}
