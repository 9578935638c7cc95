using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;
using Npgsql;
using PeftServer.Core.Data;
using PeftServer.Core.Files;
using PeftServer.Core.Hosting;
using PeftServer.Core.Inference;
using PeftServer.Core.Jobs;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;

namespace PeftServer.Core;

public static class CoreServices
{
    extension(IHostApplicationBuilder builder)
    {
        /// <summary>What every host needs: checked settings, the database, the queue, the artifact store.</summary>
        public void AddPeftCore()
        {
            var data = DataFolder.Of(builder.Configuration);
            AddOptions<ModelsOptions>(builder, ModelsOptions.Section, options => options.Root = Given(options.Root, data, "models"));
            AddOptions<StorageOptions>(builder, StorageOptions.Section, options =>
            {
                options.Root = Given(options.Root, data, "artifacts");
                options.Cache = Given(options.Cache, data, "cache");
            });
            AddOptions<WorkerOptions>(builder, WorkerOptions.Section, options => options.Runs = Given(options.Runs, data, "runs"));
            AddOptions<InferenceOptions>(builder, InferenceOptions.Section);
            AddOptions<AuthOptions>(builder, AuthOptions.Section);
            AddOptions<TorchOptions>(builder, TorchOptions.Section);

            var services = builder.Services;
            services.TryAddSingleton(TimeProvider.System);
            services.AddSingleton(_ => PeftDatabase.Open(ConnectionString(builder.Configuration)));
            services.AddPooledDbContextFactory<PeftDbContext>((provider, options) =>
                PeftDatabase.Options(options, provider.GetRequiredService<NpgsqlDataSource>()));
            services.AddSingleton<IArtifactStore, FolderArtifactStore>();
            services.AddSingleton<AdapterFolders>();
            services.AddSingleton<ArtifactCollector>();
            services.AddSingleton<FileStore>();
            services.AddSingleton<BaseModels>();
            services.AddSingleton<ModelDirectory>();
            services.AddSingleton<ModelTaskReader>();
            services.AddSingleton<InferenceHosts>();
            services.AddSingleton<JobWriter>();
            services.AddSingleton<JobStore>();
            services.AddSingleton<JobClaims>();
            services.AddSingleton<JobFeed>();
            services.AddSingleton<JobSignals>();
            services.AddHostedService(provider => provider.GetRequiredService<JobSignals>());
            JobAlarms.AddTo(services);
        }
    }

    /// <summary>The database's connection string. Throws <see cref="OptionsValidationException"/> when there is none.</summary>
    public static string ConnectionString(IConfiguration configuration) =>
        configuration.GetConnectionString("Postgres") is { Length: > 0 } given
            ? given
            : throw new OptionsValidationException("ConnectionStrings", typeof(string), [
                "ConnectionStrings:Postgres is empty. Set ConnectionStrings__Postgres=Host=…;Database=…;Username=…;Password=…, or run `peftserver up`, which brings its own PostgreSQL."]);

    private static void AddOptions<T>(IHostApplicationBuilder builder, string section, Action<T>? complete = null)
        where T : class => builder.Services.AddOptions<T>()
            .BindConfiguration(section)
            .PostConfigure(options => complete?.Invoke(options))
            .ValidateDataAnnotations()
            .ValidateOnStart();

    private static string Given(string folder, string data, string name) =>
        string.IsNullOrWhiteSpace(folder) ? Path.Combine(data, name) : Path.GetFullPath(folder);
}
