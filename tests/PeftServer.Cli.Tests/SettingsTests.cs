using Microsoft.Extensions.Configuration;

namespace PeftServer.Cli.Tests;

public sealed class SettingsTests
{
    [Fact]
    public void Parse_KnownSettings_KeepsWhatFollowsTheFirstEqualsSign()
    {
        var set = Settings.Parse(["ConnectionStrings:Postgres=Host=db;Password=a=b", "worker:devices=cpu", "Api:CorsOrigins:0=https://a.example"]);

        set["ConnectionStrings:Postgres"].ShouldBe("Host=db;Password=a=b");
        set["Worker:Devices"].ShouldBe("cpu");
        set["Api:CorsOrigins:0"].ShouldBe("https://a.example");
        Settings.Read(set)["Worker:Devices"].ShouldBe("cpu");
    }

    [Theory]
    [InlineData("Worker:Device=cpu", "Worker:Devices")]
    [InlineData("Worker:Devices", "--set Section:Key=value")]
    [InlineData("Worker=cpu", "Worker:Devices")]
    public void Parse_Misspelt_NamesTheRemedy(string assignment, string remedy)
    {
        var error = Should.Throw<CommandException>(() => Settings.Parse([assignment]));

        error.ExitCode.ShouldBe(ExitCode.Usage);
        error.Message.ShouldContain(remedy);
    }

    [Fact]
    public void Read_EverySettingOfTheOptionsClasses_IsInTheFile()
    {
        var file = Settings.Read(new Dictionary<string, string?>());
        var missing = new (string Section, Type Options)[]
        {
            (Core.Models.ModelsOptions.Section, typeof(Core.Models.ModelsOptions)),
            (Core.Storage.StorageOptions.Section, typeof(Core.Storage.StorageOptions)),
            (Core.Hosting.AuthOptions.Section, typeof(Core.Hosting.AuthOptions)),
            (Core.Hosting.TorchOptions.Section, typeof(Core.Hosting.TorchOptions)),
            (Core.Jobs.WorkerOptions.Section, typeof(Core.Jobs.WorkerOptions)),
            (Core.Inference.InferenceOptions.Section, typeof(Core.Inference.InferenceOptions)),
            (Inference.InferenceHostOptions.Section, typeof(Inference.InferenceHostOptions)),
            (Api.ApiOptions.Section, typeof(Api.ApiOptions)),
        }
            .SelectMany(section => section.Options.GetProperties()
                .Where(property => property.CanWrite)
                .Select(property => $"{section.Section}:{property.Name}"))
            .Where(key => file.AsEnumerable().All(setting => setting.Key != key));

        missing.ShouldBeEmpty();
    }
}
