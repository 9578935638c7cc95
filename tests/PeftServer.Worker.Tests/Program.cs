using PeftServer.Worker;
using PeftServer.Worker.Tests;
using Xunit.MicrosoftTestingPlatform;

if (args is ["worker", .. var settings])
{
    await WorkerHost.RunAsync(settings, CancellationToken.None);
    return 0;
}

return await TestPlatformTestFramework.RunAsync(args, SelfRegisteredExtensions.AddSelfRegisteredExtensions);
