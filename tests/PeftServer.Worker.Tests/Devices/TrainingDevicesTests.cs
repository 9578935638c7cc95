using PeftServer.Engine.Native;
using PeftServer.Worker.Devices;

namespace PeftServer.Worker.Tests.Devices;

public sealed class TrainingDevicesTests
{
    [Theory]
    [InlineData("auto", 0, "cpu")]
    [InlineData("auto", 2, "cuda:0,cuda:1")]
    [InlineData("cpu", 2, "cpu")]
    [InlineData("cuda:1, cuda:3", 4, "cuda:1,cuda:3")]
    [InlineData("cuda:0,cuda:0", 1, "cuda:0")]
    public void TryTake_UntilNoneIsFree_GivesEachDeviceOnce(string setting, int gpus, string expected)
    {
        var devices = new TrainingDevices(setting, gpus);

        var taken = new List<string>();
        while (devices.TryTake(out var device))
        {
            taken.Add(device.Name);
        }

        string.Join(',', taken).ShouldBe(expected);
        devices.Count.ShouldBe(taken.Count);
        devices.Return(TrainingDevice.Parse(taken[0]));
        devices.TryTake(out var again).ShouldBeTrue();
        again!.Name.ShouldBe(taken[0]);
    }

    [Fact]
    public void Description_Cpu_TellsTheHostsMemory()
    {
        var devices = new TrainingDevices("cpu", 0);

        devices.TryTake(out var cpu).ShouldBeTrue();
        cpu!.MemoryBytes!.Value.ShouldBeGreaterThan(256 << 20);
        devices.Description.ShouldBe($"cpu {cpu.MemoryBytes >> 30}GiB");
    }

    [Fact]
    public void Description_GpusThatNobodyKnows_CountsThem()
    {
        Assert.SkipWhen(Nvml.MemoryOf(0) is not null, "This host has GPUs.");

        new TrainingDevices("cuda:0,cuda:1", 2).Description.ShouldBe("2 cuda");
    }

    [Fact]
    public void NameInTrainer_Gpu_IsTheOnlyOneItSees()
    {
        TrainingDevice.Parse("cuda:3").ShouldBe(new TrainingDevice("cuda:3", 3));
        TrainingDevice.Parse("cuda:3").NameInTrainer.ShouldBe("cuda:0");
        TrainingDevice.Parse("cpu").NameInTrainer.ShouldBe("cpu");
    }
}
