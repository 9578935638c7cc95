using System.Text.Json;
using PeftServer.Engine.Data.Formats;

namespace PeftServer.Engine.Data;

/// <summary>The task that a row says it is of, <c>task_id</c>, for methods that know several.</summary>
internal static class RowTask
{
    /// <summary>The number, counted from 0; 0 where the row says nothing. What is no such number is told to <paramref name="fault"/>.</summary>
    public static int Read(JsonElement root, FaultReport fault)
    {
        if (!root.TryGetProperty("task_id", out var given) || given.ValueKind is JsonValueKind.Null)
        {
            return 0;
        }

        if (given.ValueKind is JsonValueKind.Number && given.TryGetInt32(out var task) && task >= 0)
        {
            return task;
        }

        fault("task_id", "wrong_type", $"task_id is {RowScope.Kind(given)} that names no task.", "Make it a whole number from 0 on, or leave it out.");
        return 0;
    }
}
