using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using PeftServer.Core.Jobs;
using PeftServer.Worker.Devices;
using PeftServer.Worker.Scheduling;
using PeftServer.Worker.Training;
using PeftServer.Worker.Validation;

namespace PeftServer.Worker;

public static class WorkerServices
{
    extension(IHostApplicationBuilder builder)
    {
        /// <summary>What makes a host a worker; needs <c>AddPeftCore</c>.</summary>
        public void AddPeftWorker()
        {
            var services = builder.Services;
            services.AddSingleton<TrainingDevices>();
            services.AddSingleton<RunFolders>();
            services.AddSingleton<TrainerLauncher>();
            services.AddSingleton<ExpertStaging>();
            services.AddSingleton<StartingModels>();
            services.AddSingleton<RunStaging>();
            services.AddSingleton<RunRecord>();
            services.AddSingleton<JobSupervisor>();
            services.AddSingleton<JobFilesCheck>();
            services.AddSingleton<IJobRunner, JobRunner>();
            services.AddHostedService<Sweeper>();
            services.AddHostedService<HangfireServers>();
            services.Configure<HostOptions>(options => options.ShutdownTimeout = TimeSpan.FromSeconds(5));
        }
    }
}
