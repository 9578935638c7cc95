using PeftServer.Engine.Native;

namespace PeftServer.Engine.Tests;

public sealed class CHeapTests
{
    [Fact]
    public void AfterStep_ThatLeftMoreThanOthers_GivesBackWhatIsFree()
    {
        var (held, trims) = (0L, 0);
        var heap = new CHeap(() => held << 20, () => (held, trims) = (560, trims + 1));

        foreach (var (megabytes, expected) in new (long, int)[] { (600, 0), (550, 0), (650, 0), (700, 1), (650, 1), (677, 2) }) // of 550 and of 560, a seventh and 32 more
        {
            held = megabytes;
            heap.AfterStep();
            trims.ShouldBe(expected, $"{megabytes} MiB");
        }
    }

    [Fact]
    public void AfterStep_OfThisProcess_DoesNoHarm()
    {
        var heap = new CHeap();
        heap.AfterStep();
        heap.AfterStep();
    }
}
