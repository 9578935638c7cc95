using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Hosting;
using PeftServer.Core;
using PeftServer.Core.Jobs;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Training;

namespace PeftServer.Testing;

/// <summary>A database and a data folder of one test class.</summary>
public sealed class TestDatabase(TestCluster cluster) : IAsyncLifetime
{
    public TestCluster Cluster => cluster;

    public string ConnectionString { get; private set; } = "";

    /// <summary>The data folder: artifacts, runs, models, cache.</summary>
    public string Folder { get; } = Directory.CreateTempSubdirectory("peft-data-").FullName;

    public async ValueTask InitializeAsync() => ConnectionString = await cluster.CreateDatabaseAsync();

    public async ValueTask DisposeAsync()
    {
        await cluster.DropDatabaseAsync(ConnectionString);
        Directory.Delete(Folder, recursive: true);
    }

    /// <summary>The settings that point a host at this database and folder.</summary>
    public IReadOnlyDictionary<string, string?> Settings => new Dictionary<string, string?>
    {
        ["Data"] = Folder,
        ["ConnectionStrings:Postgres"] = ConnectionString,
    };

    /// <summary>A host with the core's services, started; one process of several, as far as the database can tell.</summary>
    public Task<IHost> StartHostAsync(params (string Key, string? Value)[] settings) => StartHostAsync(_ => { }, settings);

    /// <summary>The same with what <paramref name="configure"/> adds.</summary>
    public async Task<IHost> StartHostAsync(Action<IHostApplicationBuilder> configure, params (string Key, string? Value)[] settings)
    {
        var builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Configuration.AddInMemoryCollection(Settings);
        builder.Configuration.AddInMemoryCollection(settings.ToDictionary(setting => setting.Key, setting => setting.Value));
        builder.AddPeftCore();
        configure(builder);
        var host = builder.Build();
        await host.StartAsync();
        return host;
    }

    /// <summary>A job as the api would store it, with files that nobody opens.</summary>
    public static FineTuningJob NewJob(string? trainingFile = null, string baseModel = "tiny-llama", TrainingMethod? method = null) => new()
    {
        BaseModel = baseModel,
        TrainingFile = trainingFile ?? PublicId.NewFile(),
        Peft = new LoraConfig { TaskType = TaskType.CausalLm, R = 4, TargetModules = ModuleSelector.AllLinear },
        Method = method ?? new TrainingMethod(),
        Training = new TrainingArguments { MaxSteps = 3 },
        Request = """{"model": "tiny-llama"}""",
    };
}
