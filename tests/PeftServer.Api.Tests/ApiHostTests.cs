using System.Net;

namespace PeftServer.Api.Tests;

public sealed class ApiHostTests(ApiServer server) : IClassFixture<ApiServer>
{
    [Fact]
    public async Task Api_AfterAJobWasCreated_HasLoadedNoLibtorch()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Reads /proc.");
        var id = await server.CreateJobAsync();
        (await server.GetAsync($"/v1/fine_tuning/jobs/{id}")).Status.ShouldBe(HttpStatusCode.OK);

        var maps = await File.ReadAllTextAsync("/proc/self/maps", TestContext.Current.CancellationToken);

        maps.ShouldNotContain("libtorch", Case.Insensitive);
    }
}
