using System.Diagnostics;
using System.Text.Json;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests;

/// <summary>How damaged inputs ended: read, or refused in words. Anything else fails the test.</summary>
/// <param name="room">Bytes that one input may allocate, all in all and not at once.</param>
internal sealed class FuzzOutcomes(long room = 200_000_000)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private readonly long _start = Stopwatch.GetTimestamp();
    private int _read;
    private int _refused;
    private long _most;
    private TimeSpan _longest;

    /// <summary>Within some seconds, without an exception of another kind, and without room for what a number claims.</summary>
    public void Try(string input, Action<string> action)
    {
        var (start, before) = (Stopwatch.GetTimestamp(), GC.GetAllocatedBytesForCurrentThread());
        try
        {
            action(input);
            _read++;
        }
        catch (Exception e) when (e is CheckpointException or TokenizerException or TemplateException or JsonException)
        {
            e.Message.ShouldNotBeEmpty();
            _refused++;
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"{e.GetType().Name} for: {Shown(input)}", e);
        }

        var (took, allocated) = (Stopwatch.GetElapsedTime(start), GC.GetAllocatedBytesForCurrentThread() - before);
        took.ShouldBeLessThan(Patience, Shown(input));
        allocated.ShouldBeLessThan(room, Shown(input));
        (_longest, _most) = (took > _longest ? took : _longest, Math.Max(_most, allocated));
    }

    public override string ToString() =>
        $"{_read + _refused} inputs in {Stopwatch.GetElapsedTime(_start).TotalSeconds:F0} s: {_read} read, {_refused} refused; the longest {_longest.TotalMilliseconds:F0} ms, the most allocated {_most / 1e6:F1} MB";

    private static string Shown(string input) => input.Length > 4000 ? input[..4000] : input;
}
